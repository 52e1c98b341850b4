# SPDX-License-Identifier: Apache-2.0
"""VCast against its slow reference, and by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from methods.compared import BUDGETS, CLIPS, assert_as_reference, assert_scores, video

import tokenprune as tp


@pytest.mark.parametrize("settings", BUDGETS, ids=str)
@pytest.mark.parametrize("clip", CLIPS)
def test_it_decides_as_the_reference(clip: str, settings: dict[str, Any]) -> None:
    plan, expected = assert_as_reference(tp.VCast(**settings), CLIPS[clip], **settings)
    assert_scores(plan, expected)
    assert frames_of(plan, CLIPS[clip].grid) == expected.shares or plan.is_identity


def frames_of(plan: tp.TokenPlan, grid: tuple[int, int, int]) -> list[int]:
    return torch.bincount(plan.anchors // (grid[1] * grid[2]), minlength=grid[0]).tolist()


def test_a_turn_gets_more() -> None:
    """Curvature 1, 1 - cos 0.2, 2, 1, so of 40 tokens beside one each 6.23, 1.54, 26.00 and 6.23."""
    angles = torch.tensor([-0.3, -0.1, 0.1, -0.1])
    rows = torch.stack([angles.cos(), angles.sin()], dim=1).repeat_interleave(40, dim=0)
    plan = tp.VCast(keep=44).plan(tp.VisualTokens(rows, (4, 5, 8)))
    assert frames_of(plan, (4, 5, 8)) == [7, 3, 27, 7]


def test_what_is_left_over_goes_round() -> None:
    """Four equal frames, six tokens: largest remainder; the authors' code gives 3, 1, 1, 1."""
    plan = tp.VCast(keep=6).plan(tp.VisualTokens(torch.ones(16, 3), (4, 2, 2)))
    assert plan.anchors.tolist() == [0, 1, 4, 5, 8, 12]


def test_in_a_frame_the_unlike_and_the_long_stay() -> None:
    tokens = video([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [4.0, 0.0]], (1, 2, 2))
    plan = tp.VCast(keep=2).plan(tokens)
    assert plan.anchors.tolist() == [2, 3]
    unlike = [1 - 6 / 37**0.5, 1 - 1 / 37**0.5]
    assert plan.scores is not None
    assert plan.scores.tolist() == pytest.approx([unlike[0], unlike[0], unlike[1], unlike[0] + 1], abs=1e-5)


def test_fewer_tokens_than_frames() -> None:
    assert tp.VCast(keep=3).plan(tp.VisualTokens(torch.ones(10, 2), (10, 1, 1))).anchors.tolist() == [0, 1, 2]
