# SPDX-License-Identifier: Apache-2.0
"""VidCom2: unusual frames get more of an exact budget, unusual tokens of a frame stay."""

from __future__ import annotations

import math

import pytest
import torch
from methods.held import CLIPS, agrees, agrees_on_all_clips, few

import tokenprune as tp


@pytest.mark.parametrize("temperature", [0.01, 1.0])
def test_it_is_the_reference(temperature: float) -> None:
    agrees_on_all_clips(tp.VidCom2, temperature=temperature)


def test_it_is_shared_out_as_the_reference_does() -> None:
    clip = CLIPS["structured-42"]
    reference = agrees(tp.VidCom2(keep_ratio=0.29), clip, keep_ratio=0.29)
    assert reference is not None
    assert reference.shares is not None
    frames = tp.VidCom2(keep_ratio=0.29).plan(tp.VisualTokens(torch.from_numpy(clip.features), clip.grid)).anchors // 20
    assert torch.bincount(frames, minlength=6).tolist() == reference.shares


def test_by_hand() -> None:
    # The first channel varies less and is the half that is read: 1, 1, 1, -1 at length 1, mean 1/2.
    tokens = few([1.0, 7.0], [2.0, -9.0], [1.0, 8.0], [-1.0, -9.0], grid=(1, 2, 2))
    plan = tp.VidCom2(keep=1).plan(tokens)
    assert plan.anchors.tolist() == [3]
    near, far = (sum(math.exp(-(d**2) / (2 * a)) for a in (1 / 8, 1 / 4, 1 / 2, 1, 2)) for d in (0.5, 1.5))
    assert plan.scores is not None
    assert plan.scores.tolist() == pytest.approx([-2 * near, -2 * near, -2 * near, -2 * far])


def test_an_unusual_frame_keeps_more() -> None:
    usual, unusual = [[1.0, 1.0]] * 4, [[-1.0, -1.0]] * 4
    tokens = few(*usual, *usual, *unusual, *usual, grid=(4, 2, 2))
    frames = tp.VidCom2(keep=8).plan(tokens).anchors // 4
    assert torch.bincount(frames).tolist() == [2, 2, 3, 1]  # 1.5, 1.5, 3.5, 1.5: halves go to the earlier


@pytest.mark.parametrize("temperature", [0.0, -1, float("nan"), True, "cold"])
def test_a_temperature_that_is_not_allowed_is_refused(temperature: object) -> None:
    with pytest.raises(tp.InvalidValueError, match="temperature"):
        tp.VidCom2(keep=1, temperature=temperature)  # type: ignore[arg-type]
