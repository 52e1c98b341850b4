# SPDX-License-Identifier: Apache-2.0
"""TTF against its slow reference, and by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from methods.compared import BUDGETS, CLIPS, assert_as_reference, assert_scores, video

import tokenprune as tp

THRESHOLDS: list[dict[str, Any]] = [{}, {"threshold": 0.3}, {"threshold": 0.95}]


@pytest.mark.parametrize("settings", [*BUDGETS, *THRESHOLDS], ids=str)
@pytest.mark.parametrize("clip", CLIPS)
def test_it_decides_as_the_reference(clip: str, settings: dict[str, Any]) -> None:
    assert_scores(*assert_as_reference(tp.TTF(**settings), CLIPS[clip], **settings))


def test_by_hand() -> None:
    """The middle frame is the first of the two nearest to the mean; only what is two places from its like is new."""
    a, b, c = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]
    tokens = video([c, b, b, b, a, c, a, b, c], (3, 1, 3))
    plan = tp.TTF(threshold=0.5).plan(tokens)
    assert plan.anchors.tolist() == [0, 2, 3, 4, 5]
    assert plan.scores is not None
    assert plan.scores.tolist() == [1, 0, 1, 3, 3, 3, 0, 0, 0]
    assert tp.TTF(keep=2).plan(tokens).anchors.tolist() == [3, 4]
    assert tp.TTF(keep=4).plan(tokens).anchors.tolist() == [0, 3, 4, 5]
    assert tp.TTF(keep=6).plan(tokens).anchors.tolist() == [0, 1, 2, 3, 4, 5]


def test_of_equal_frames_the_first_is_the_anchor() -> None:
    tokens = tp.VisualTokens(torch.ones(12, 3), (3, 2, 2))
    assert tp.TTF().plan(tokens).anchors.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "settings", [{"threshold": 0.5, "keep": 3}, {"threshold": 0.5, "keep_ratio": 0.5}, {"keep": 3, "keep_ratio": 0.5}]
)
def test_a_threshold_and_a_budget_exclude_each_other(settings: dict[str, Any]) -> None:
    with pytest.raises(tp.BudgetError, match="at most one of threshold, keep_ratio"):
        tp.TTF(**settings)


@pytest.mark.parametrize("threshold", [1.5, -1.01, float("nan"), "0.5", True])
def test_a_threshold_is_a_cosine(threshold: Any) -> None:
    with pytest.raises(tp.InvalidValueError, match="threshold"):
        tp.TTF(threshold=threshold)


def test_one_frame_stays() -> None:
    assert tp.TTF().plan(tp.VisualTokens(torch.randn(6, 4), (1, 2, 3))).is_identity
    assert tp.TTF(threshold=-1.0).plan(tp.VisualTokens(torch.randn(6, 4), (1, 2, 3))).is_identity
