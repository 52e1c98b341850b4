# SPDX-License-Identifier: Apache-2.0
"""EVS: what has changed since the frame before goes on, the first frame before all."""

from __future__ import annotations

import pytest
from methods.held import CLIPS, agrees_on_all_clips, few, tokens_of

import tokenprune as tp


def test_it_is_the_reference() -> None:
    agrees_on_all_clips(tp.EVS)


def test_by_hand() -> None:
    # Cosines to the frame before: 1, 0; 0.6, 1. The last frame is compared with the one before it, not with the kept.
    tokens = few([1, 0], [0, 1], [1, 0], [1, 0], [3, 4], [2, 0], grid=(3, 1, 2))
    plan = tp.EVS(keep=4).plan(tokens)
    assert plan.anchors.tolist() == [0, 1, 3, 4]
    assert plan.scores is not None
    assert plan.scores.tolist() == pytest.approx([255, 255, 0, 1, 0.4, 0])


@pytest.mark.parametrize(("keep", "anchors"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 3]), (5, [0, 1, 2, 3, 4])])
def test_budgets_are_exact_below_the_first_frame_and_in_ties(keep: int, anchors: list[int]) -> None:
    tokens = few([1, 0], [0, 1], [1, 0], [1, 0], [3, 4], [2, 0], grid=(3, 1, 2))
    assert tp.EVS(keep=keep).plan(tokens).anchors.tolist() == anchors


def test_what_stands_still_is_a_tie_whatever_rounding_makes_of_it() -> None:
    still = CLIPS["still-small"]
    assert tp.EVS(keep=20).plan(tokens_of(still)).anchors.tolist() == list(range(20))


def test_tokens_merged_before_are_refused() -> None:
    tokens = few([1, 0], [0, 1], [1, 0])
    fewer = tp.UniformSelect(keep=2).plan(tokens).apply(tokens)
    with pytest.raises(tp.InvalidValueError, match="EVS must come first"):
        tp.EVS(keep=1).plan(fewer)
