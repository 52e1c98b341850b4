# SPDX-License-Identifier: Apache-2.0
"""References that compare frames place by place (EVS, DTD, TTF, DyCoke) against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from .by_hand import E1, E2, E3, rows
from .methods import dtd, dycoke, evs, ttf

THREE_FRAMES = rows(E1, E1, E1, E2, E2, E2)  # of two places; 1 - cosine: first frame, then 0, 1, 1, 0
PAIR = (3, 1, 2)


@pytest.mark.parametrize(
    ("keep", "anchors"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 3]), (4, [0, 1, 3, 4]), (5, [0, 1, 2, 3, 4])]
)
def test_evs(keep: int, anchors: list[int]) -> None:
    plan = evs.reference(THREE_FRAMES, PAIR, keep=keep)
    assert plan.anchors == anchors
    np.testing.assert_array_equal(plan.scores, [255, 255, 0, 1, 1, 0])
    assert dtd.reference(THREE_FRAMES, PAIR, keep=keep).anchors == anchors


def test_evs_compares_with_the_unpruned_frame_and_zero_is_like_nothing() -> None:
    # e1, e1, 0, 0, e1: 1 - cosine is 0, 1, 1, 1, not what it would be against the last token kept.
    plan = evs.reference(rows(E1, E1, (0, 0, 0), (0, 0, 0), E1), (5, 1, 1), keep=3)
    np.testing.assert_array_equal(plan.scores, [255, 0, 1, 1, 1])
    assert plan.anchors == [0, 2, 3]


def test_dtd_drops_strictly_above_the_threshold() -> None:
    assert dtd.reference(THREE_FRAMES, PAIR).anchors == [0, 1, 3, 4]
    features = rows((1, 0), (3, 4))  # cosine 0.6
    assert dtd.reference(features, (2, 1, 1), threshold=0.6).anchors == [0, 1]
    assert dtd.reference(features, (2, 1, 1), threshold=0.59).anchors == [0]
    assert dtd.reference(features, (1, 1, 2), threshold=0.0).anchors == [0, 1]


def test_ttf_looks_for_matches_next_door_only() -> None:
    # Both frames have the same mean: the first is the anchor. e3 and e1 at the ends are two places from their match.
    features = rows(E1, E2, E3, E3, E2, E1)
    plan = ttf.reference(features, (2, 1, 3))
    assert plan.anchors == [0, 1, 2, 3, 5]
    np.testing.assert_allclose(plan.scores, [3, 3, 3, 1, 0, 1], atol=1e-12)
    assert ttf.reference(features, (2, 1, 3), keep=4).anchors == [0, 1, 2, 3]
    assert ttf.reference(features, (2, 1, 3), keep=2).anchors == [0, 1]
    # In a column of three rows the same holds; in a square of two all places are next door.
    assert ttf.reference(features, (2, 3, 1)).anchors == [0, 1, 2, 3, 5]
    assert ttf.reference(rows(E1, E2, E3, E1, E1, E3, E2, E1), (2, 2, 2)).anchors == [0, 1, 2, 3]


def test_ttf_takes_the_frame_most_like_the_whole_as_anchor_and_drops_strictly_above() -> None:
    features = rows((1, 0), (3, 4))  # mean (2, 2): cosines 0.707 and 0.99; to each other 0.6
    assert ttf.reference(features, (2, 1, 1), threshold=0.6).anchors == [0, 1]
    assert ttf.reference(features, (2, 1, 1), threshold=0.59).anchors == [1]
    assert ttf.reference(features, (2, 1, 1), keep=1).anchors == [1]


FOUR_FRAMES = rows(E1, E2, E1, E1, E2, E2, E2, E1)  # to g: (1, 0); to g: (0, 1); to g + 2: (1, 0)


def test_dycoke_keeps_of_each_frame_what_is_least_like_its_partner() -> None:
    plan = dycoke.reference(FOUR_FRAMES, (4, 1, 2), k=0.5)
    assert plan.anchors == [0, 1, 3, 4, 7]
    assert dycoke.reference(FOUR_FRAMES, (4, 1, 2), keep=5).anchors == plan.anchors
    assert dycoke.reference(FOUR_FRAMES, (4, 1, 2), keep=4).anchors == [0, 1, 3, 4]
    assert dycoke.reference(FOUR_FRAMES, (4, 1, 2), keep=1).anchors == [0]
    assert dycoke.reference(rows(E1, E2, E1, E2), (2, 1, 2), k=0.5).anchors == [0, 1, 2]  # a tie
    # The third frame is like the first at place 1, like the second at place 0.
    assert dycoke.reference(rows(E1, E2, E2, E1, E2, E2), (3, 1, 2), k=0.5).anchors == [0, 1, 2, 4]


@pytest.mark.parametrize(
    ("frames", "k", "shares"),
    [
        (1, 0.7, [10]),
        (3, 0.7, [10, 3, 3]),
        (8, 0.7, [10, 3, 3, 3, 10, 3, 3, 3]),
        (5, 0.9, [10, 1, 1, 1, 10]),  # floor(10 * (1 - 0.9)) is 0 in floats
        (4, 1.0, [10, 0, 0, 0]),
    ],
)
def test_dycoke_treats_every_group_alike(frames: int, k: float, shares: list[int]) -> None:
    features = np.random.default_rng(frames).standard_normal((frames * 10, 4))
    assert dycoke.reference(features, (frames, 2, 5), k=k).shares == shares
