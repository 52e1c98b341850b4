# SPDX-License-Identifier: Apache-2.0
"""ToMe against its slow reference, and by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from methods.compared import BUDGETS, CLIPS, assert_as_reference, video

import tokenprune as tp
from tokenprune import batching


@pytest.mark.parametrize("settings", BUDGETS, ids=str)
@pytest.mark.parametrize("clip", CLIPS)
def test_it_decides_as_the_reference(clip: str, settings: dict[str, Any]) -> None:
    assert_as_reference(tp.ToMe(**settings), CLIPS[clip], **settings)


ROWS = [[1.0, 0.0], [0.0, 1.0], [0.0, 2.0], [3.0, 0.0], [5.0, 5.0]]


def test_one_round_by_hand() -> None:
    plan = tp.ToMe(keep=4).plan(video(ROWS, (5, 1, 1)))
    assert plan.assign.tolist() == [2, 0, 1, 2, 3]  # both links are exact: the first of A goes
    assert plan.anchors.tolist() == [1, 2, 3, 4]
    assert plan.scores is not None
    assert plan.scores.tolist() == pytest.approx([0, 2, 0, 2, 1 - 0.5**0.5], abs=1e-5)


def test_rounds_follow_on_the_merged_means() -> None:
    tokens = video(ROWS, (5, 1, 1))
    merged = tp.ToMe(keep=3).plan(tokens).apply(tokens)
    assert merged.features.tolist() == [[0.0, 1.5], [2.0, 0.0], [5.0, 5.0]]
    last = tp.ToMe(keep=1).plan(tokens).apply(tokens)
    assert last.features.flatten().tolist() == pytest.approx([9 / 5, 8 / 5])


def test_sizes_of_what_was_merged_before_count() -> None:
    tokens = video([[1.0, 0.0], [1.0, 0.0], [4.0, 0.0]], (3, 1, 1))
    twice = tp.TokenPlan(torch.tensor([0, 2]), torch.tensor([0, 0, 1])).apply(tokens)
    merged = tp.ToMe(keep=1).plan(twice).apply(twice)
    assert merged.features.flatten().tolist() == [2.0, 0.0]
    assert merged.sources[0].tolist() == [0, 1, 2]


def test_pieces_of_the_table_decide_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = tp.VisualTokens(torch.randn(90, 16, generator=torch.Generator().manual_seed(1)), (5, 3, 6))
    whole = tp.ToMe(keep=17).plan(tokens)
    monkeypatch.setattr(batching, "DISTANCE_BYTES", 7 * 45 * batching.BYTES_A_PAIR)
    assert torch.equal(tp.ToMe(keep=17).plan(tokens).assign, whole.assign)
