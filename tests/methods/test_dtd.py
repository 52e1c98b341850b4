# SPDX-License-Identifier: Apache-2.0
"""DTD against its slow reference, and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from methods.compared import BUDGETS, CLIPS, assert_as_reference, video

import tokenprune as tp

THRESHOLDS: list[dict[str, Any]] = [{}, {"threshold": 0.3}, {"threshold": 0.95}]


@pytest.mark.parametrize("settings", [*BUDGETS, *THRESHOLDS], ids=str)
@pytest.mark.parametrize("clip", CLIPS)
def test_it_decides_as_the_reference(clip: str, settings: dict[str, Any]) -> None:
    plan, expected = assert_as_reference(tp.DTD(**settings), CLIPS[clip], **settings)
    if not plan.is_identity:
        length = CLIPS[clip].grid[1] * CLIPS[clip].grid[2]
        assert plan.scores is not None
        assert expected.scores is not None
        assert plan.scores[:length].tolist() == [3.0] * length  # above any 1 - cosine
        np.testing.assert_allclose(plan.scores[length:], expected.scores[length:], atol=1e-5)


MOVING = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 3.0], [1.0, 0.0], [0.0, 2.0]]
"""Three frames of two tokens: the first turns by 45 degrees twice, the second never."""


def test_by_hand() -> None:
    tokens = video(MOVING, (3, 1, 2))
    assert tp.DTD(threshold=0.5).plan(tokens).anchors.tolist() == [0, 1]
    assert tp.DTD(threshold=0.8).plan(tokens).anchors.tolist() == [0, 1, 2, 4]
    assert tp.DTD(threshold=1.0).plan(tokens).is_identity  # what equals the threshold stays
    assert tp.DTD(keep=1).plan(tokens).anchors.tolist() == [0]
    assert tp.DTD(keep=3).plan(tokens).anchors.tolist() == [0, 1, 2]  # of two equal ones the earlier
    assert tp.DTD(keep=5).plan(tokens).anchors.tolist() == [0, 1, 2, 3, 4]


def test_each_is_compared_with_the_whole_frame_before() -> None:
    """A slow turn is dropped all the way, though its end is far from its beginning."""
    angles = torch.linspace(0, torch.pi / 2, 9)
    tokens = tp.VisualTokens(torch.stack([angles.cos(), angles.sin()], dim=1), (9, 1, 1))
    assert tp.DTD(threshold=0.9).plan(tokens).anchors.tolist() == [0]


def test_noise_does_not_order_a_still_video() -> None:
    frame = torch.randn(1, 50, 300, generator=torch.Generator().manual_seed(0))
    tokens = tp.VisualTokens(frame.expand(4, 50, 300).reshape(200, 300), (4, 5, 10))
    assert tp.DTD(keep=73).plan(tokens).anchors.tolist() == list(range(73))


@pytest.mark.parametrize(
    "settings", [{"threshold": 0.5, "keep": 3}, {"threshold": 0.5, "keep_ratio": 0.5}, {"keep": 3, "keep_ratio": 0.5}]
)
def test_a_threshold_and_a_budget_exclude_each_other(settings: dict[str, Any]) -> None:
    with pytest.raises(tp.BudgetError, match="at most one of threshold, keep_ratio"):
        tp.DTD(**settings)


@pytest.mark.parametrize("threshold", [1.5, -1.01, float("nan"), "0.5", True])
def test_a_threshold_is_a_cosine(threshold: Any) -> None:
    with pytest.raises(tp.InvalidValueError, match="threshold"):
        tp.DTD(threshold=threshold)


def test_one_frame_stays() -> None:
    assert tp.DTD().plan(tp.VisualTokens(torch.randn(6, 4), (1, 2, 3))).is_identity
    assert tp.DTD(threshold=-1.0).plan(tp.VisualTokens(torch.randn(6, 4), (1, 2, 3))).is_identity
