# SPDX-License-Identifier: Apache-2.0
"""HoliTom: windows that stand still become one frame there, and the most attended of the rest stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from methods.held import agrees_on_all_clips, few

import tokenprune as tp


@pytest.mark.parametrize("more", [{}, {"tau": 0.5}, {"tau": 0.99, "beta": 0.3}], ids=str)
def test_it_is_the_reference(more: dict[str, Any]) -> None:
    agrees_on_all_clips(tp.HoliTom, **more)


def five_frames(column: list[float]) -> tp.VisualTokens:
    """Of two places: the first stands still in frames 0 to 2 and 3 to 4, the second in frames 0 to 1 only."""
    left, right = [[1, 0], [3, 0], [2, 0], [0, 1], [0, 1]], [[5, 5], [7, 7], [0, 1], [1, 0], [0, 1]]
    rows = [row for both in zip(left, right) for row in both]
    return few(*rows, grid=(5, 1, 2), encoder_column=column)


def test_windows_save_as_many_tokens_as_they_can() -> None:
    tokens = five_frames([0.1] * 10)
    # Frames 0 to 1 save 2 tokens, as 0 to 2 would; of ties the window at the end is the shorter one. 3 to 4 save 1.
    plan = tp.HoliTom(keep=6).plan(tokens)
    assert plan.segments == ((0, 2), (2, 3), (3, 5))
    # Of the blocks of 2, 2, 1, 1, 1 tokens that are left the first is whole, and one of frame 2 is gone.
    assert plan.assign.tolist() == [0, 1, 0, 1, 2, -1, 3, 4, 3, 5]
    assert plan.apply(tokens).features[0].tolist() == [2.0, 0.0]


def test_still_places_move_again_where_the_budget_is_larger() -> None:
    plan = tp.HoliTom(keep=8).plan(five_frames([0.1] * 10))
    assert plan.kept == 8
    assert plan.assign.tolist() == [0, 1, 2, 1, 3, 4, 5, 6, 5, 7]  # all are as alike: the earlier goes first


def test_a_centre_counts_beta_against_the_mean_of_the_others() -> None:
    column = [0.5] * 6
    tokens = few([0.0, 1], [1.0, 1], [4.0, 1], [0.0, 1], [1.0, 1], [4.0, 1], grid=(2, 1, 3), encoder_column=column)
    plan = tp.HoliTom(keep=1, beta=0.75).plan(tokens)
    assert plan.assign.tolist() == [0] * 6
    centre = int(plan.anchors)
    others = [x for x in (0.0, 1.0, 4.0) if x != (0.0, 1.0, 4.0)[centre]]
    merged = plan.apply(tokens).features
    assert torch.allclose(merged[0, 0], torch.tensor(0.75 * (0.0, 1.0, 4.0)[centre] + 0.25 * sum(others) / 2))


def test_one_frame_keeps_the_most_attended() -> None:
    tokens = few([1.0], [2.0], [3.0], grid=(1, 1, 3), encoder_column=[0.2, 0.5, 0.2])
    assert tp.HoliTom(keep=2).plan(tokens).anchors.tolist() == [0, 1]


def test_what_is_not_allowed_is_refused() -> None:
    for arguments in ({"tau": 1.5}, {"beta": -0.1}, {"modalities": "video"}):
        with pytest.raises(tp.InvalidValueError):
            tp.HoliTom(keep=1, **arguments)  # type: ignore[arg-type]
    with pytest.raises(tp.InvalidValueError, match="encoder_column"):
        tp.HoliTom(keep=1).plan(few([1.0], [2.0]))
