# SPDX-License-Identifier: Apache-2.0
"""VisionZip: dominant tokens, and contextual ones that take in the rest."""

from __future__ import annotations

import pytest
import torch
from methods.held import agrees_on_all_clips, few

import tokenprune as tp

COLUMN = [0.1, 0.9, 0.2, 0.8, 0.1, 0.3]
KEYS = [[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 1.0], [0.2, 1.0], [1.0, 0.1]]


@pytest.mark.parametrize("more", [{}, {"published": True}, {"dominant": 1, "contextual": 2}], ids=str)
def test_it_is_the_reference(more: dict[str, int]) -> None:
    agrees_on_all_clips(tp.VisionZip, **more)


def six() -> tp.VisualTokens:
    features = ([float(i)] for i in range(6))
    return few(*features, grid=(1, 2, 3), encoder_column=COLUMN, encoder_keys=KEYS)


def test_by_hand() -> None:
    # Dominant 1 and 3; of 0, 2, 4, 5 every second is contextual: 0 and 4; 2 is like 4, and 5 like 0.
    operator = tp.VisionZip(keep=4, dominant=1, contextual=1)
    plan = operator.plan(six())
    assert plan.anchors.tolist() == [0, 1, 3, 4]
    assert plan.assign.tolist() == [0, 1, 3, 2, 3, 0]
    assert plan.apply(six()).features.flatten().tolist() == [2.5, 1.0, 3.0, 3.0]
    published = tp.VisionZip(keep=4, dominant=1, contextual=1, published=True).plan(six())
    assert torch.equal(published.assign, plan.assign)
    assert published.apply(six()).features.flatten().tolist() == [5.0, 1.0, 3.0, 6.0]


def test_a_frame_with_one_token_keeps_the_dominant_one_alone() -> None:
    assert tp.VisionZip(keep=1).plan(six()).assign.tolist() == [-1, 0, -1, -1, -1, -1]
    assert tp.VisionZip(keep=2).plan(six()).assign.tolist() == [0, 1, 0, 0, 0, 0]


def test_it_needs_its_signals() -> None:
    assert tp.VisionZip(keep=1).needs == ("encoder_column", "encoder_keys")
    with pytest.raises(tp.InvalidValueError, match="encoder_column"):
        tp.VisionZip(keep=1).plan(few([1.0], [2.0]))
    broken = few([1.0], [2.0], encoder_column=[0.0, float("nan")], encoder_keys=[[1.0], [1.0]])
    with pytest.raises(tp.InvalidValueError, match="finite"):
        tp.VisionZip(keep=1).plan(broken)


def test_what_is_not_allowed_is_refused() -> None:
    for arguments in ({"dominant": -1}, {"contextual": 0.5}, {"dominant": 0, "contextual": 0}, {"published": 1}):
        with pytest.raises(tp.InvalidValueError):
            tp.VisionZip(keep=1, **arguments)  # type: ignore[arg-type]
