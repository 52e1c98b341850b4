# SPDX-License-Identifier: Apache-2.0
"""FLoC against its slow reference, and by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from methods.compared import BUDGETS, CLIPS, assert_as_reference, video

import tokenprune as tp
from tokenprune import batching
from tokenprune.operators.frame_blocks import block_sizes


@pytest.mark.parametrize("chunk", [32, 2])
@pytest.mark.parametrize("settings", BUDGETS, ids=str)
@pytest.mark.parametrize("clip", CLIPS)
def test_it_decides_as_the_reference(clip: str, settings: dict[str, Any], chunk: int) -> None:
    """Also where gains are exactly equal, as those of two tokens that improve only each other are."""
    assert_as_reference(tp.FLoC(**settings, chunk=chunk), CLIPS[clip], **settings, chunk=chunk)


def test_gains_by_hand() -> None:
    """The first has the largest sum of cosines; then the one at a right angle to it adds 1, the pair 0.27."""
    near = 3**0.5 / 2
    tokens = video([[1.0, 0.0], [0.0, -1.0], [near, 0.5], [near, 0.5]], (1, 2, 2))
    plan = tp.FLoC(keep=2).plan(tokens)
    assert plan.anchors.tolist() == [0, 1]
    assert plan.scores is not None
    left = 2 * (1 - near)
    assert plan.scores.tolist() == pytest.approx([1 + 2 * near, 1, left, left], abs=1e-5)
    assert tp.FLoC(keep=3).plan(tokens).anchors.tolist() == [0, 1, 2]


def test_a_chunk_that_would_not_fit_is_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = tp.VisualTokens(torch.randn(140, 6, generator=torch.Generator().manual_seed(2)), (7, 4, 5))
    expected = tp.FLoC(keep=50, chunk=2).plan(tokens)
    monkeypatch.setattr(batching, "DISTANCE_BYTES", 4 * 50**2 * 8 // 7)
    assert torch.equal(tp.FLoC(keep=50).plan(tokens).anchors, expected.anchors)


def test_blocks_of_frames() -> None:
    tokens = tp.VisualTokens(torch.ones(42, 1), (7, 2, 3))
    assert block_sizes(tokens, 3, 100) == [18, 18, 6]
    assert block_sizes(tokens, 3, 13) == [12, 12, 12, 6]
    assert block_sizes(tokens, 3, 4) == [3] * 14  # parts of a frame
    fewer = tp.TokenPlan.keeping(torch.tensor([0, 1, 2, 18, 40, 41]), 42).apply(tokens)
    assert block_sizes(fewer, 3, 100) == [3, 1, 2]
    assert block_sizes(fewer, 2, 100) == [3, 1, 2]  # a stretch without tokens is no block
