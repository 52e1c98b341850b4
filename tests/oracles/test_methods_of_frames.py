# SPDX-License-Identifier: Apache-2.0
"""References that give frames budgets of their own (VidCom2, VCast, GleanVID) against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from .by_hand import E1, E2, rows
from .methods import gleanvid, vcast, vidcom2
from .methods.deciding import Decisions

# The first channel varies more, so the second alone counts: 1, 1 | 1, -1 after division by its length. Distances to the
# video's mean 0.5, 0.5 | 0.5, 1.5, to the frames' means 0, 0 | 1, 1. Sums of Gaussians at 0, 0.5, 1, 1.5:
SUMS = {0.0: 5.0, 0.5: 3.5751, 1.0: 1.9068, 1.5: 1.0111}
TWO_FRAMES = rows((10, 1), (-10, 2), (10, 1), (-10, -1))


def test_vidcom2() -> None:
    for distance, total in SUMS.items():
        assert vidcom2.likeness(np.array([distance]), np.zeros(1)) == pytest.approx(total, abs=1e-4)
    plan = vidcom2.reference(TWO_FRAMES, (2, 1, 2), keep=3)
    expected = [SUMS[0.5] + SUMS[0.0]] * 2 + [SUMS[0.5] + SUMS[1.0], SUMS[1.5] + SUMS[1.0]]
    np.testing.assert_allclose(plan.scores, np.negative(expected), atol=2e-4)
    # The second frame is so much less usual that sigma is (0, 1): shares of 3 are 0.75 and 2.25; of 2, 0.5 and 1.5.
    assert plan.shares == [1, 2]
    assert plan.anchors == [0, 2, 3]
    assert vidcom2.reference(TWO_FRAMES, (2, 1, 2), keep=2).anchors == [0, 3]
    assert vidcom2.reference(TWO_FRAMES, (2, 1, 2), keep=1).anchors == [3]


def test_vidcom2_of_one_channel_still_looks_at_it() -> None:
    assert vidcom2.reference(rows(1, 1, -1), (1, 1, 3), keep=1).anchors == [2]


def test_vcast_splits_evenly_where_nothing_turns_by_largest_remainder() -> None:
    # Mean frames e1, e1, e2, e2: no step is followed by another, all turns are 1. In a frame the longer token stays.
    features = rows(E1, (3, 0, 0), E1, (3, 0, 0), E2, (0, 3, 0), E2, (0, 3, 0))
    plan = vcast.reference(features, (4, 1, 2), keep=6)
    assert plan.shares == [2, 2, 1, 1]
    assert plan.anchors == [0, 1, 2, 3, 5, 7]
    np.testing.assert_allclose(plan.scores, [0, 1] * 4, atol=1e-6)
    assert vcast.reference(features, (4, 1, 2), keep=3).anchors == [1, 3, 5]


def test_vcast_gives_a_frame_where_the_video_turns_back_more() -> None:
    # Mean frames e1, e2, e1: turns 1, 2, 1, weights exp(0, 1/0.7, 0) / 6.173 = .162, .676, .162.
    assert vcast.turning([np.array(v) for v in (E1, E2, E1)]) == pytest.approx([1.0, 2.0, 1.0])
    features = rows(*[E1] * 4, *[E2] * 4, *[E1] * 4)
    assert vcast.reference(features, (3, 2, 2), keep=5).shares == [1, 3, 1]  # of 2 extra .324, 1.352, .324
    assert vcast.reference(features, (3, 2, 2), keep=3).shares == [1, 1, 1]
    assert vcast.reference(features, (3, 2, 2), keep=2).shares == [0, 2, 0]  # no one each
    assert vcast.reference(features, (3, 2, 2), keep=2).anchors == [4, 5]
    assert vcast.reference(features, (3, 2, 2), keep=9).shares == [3, 4, 2]  # .97, 4.06 (3 fit), .97; 1 more: the first


def test_vcast_keeps_what_is_unlike_the_frame() -> None:
    # Mean (1, .5): 1 - cosine is .106, .106, .106, .553; all as long.
    assert vcast.reference(rows((1, 0), (1, 0), (1, 0), (0, 1)), (1, 1, 4), keep=2).anchors == [0, 3]


def test_gleanvid_parts() -> None:
    assert gleanvid.cells_of(3, 3) == [
        *([0, 1, 3, 4], [0, 1, 3, 4], [2, 5]),
        *([0, 1, 3, 4], [0, 1, 3, 4], [2, 5]),
        *([6, 7], [6, 7], [8]),
    ]
    assert gleanvid.gini([1.0, 1.0]) == pytest.approx(0.0)
    assert gleanvid.gini([1.0, 0.0]) == pytest.approx(0.5)
    assert gleanvid.gini([7.0]) == pytest.approx(0.0)
    # Of what h frames have shown the ridge leaves eps / (h + eps) of the square; zeros leave nothing.
    seen = np.array([[[1.0, 0.0]], [[1.0, 0.0]], [[1.0, 0.0]], [[0.0, 3.0]]])
    assert gleanvid.novelty(seen) == pytest.approx([1.0, (1e-4 / 1.0001) ** 0.5, (1e-4 / 2.0001) ** 0.5, 3.0])
    assert gleanvid.novelty(0 * seen) == [0.0] * 4
    np.testing.assert_allclose(
        gleanvid.without_context(rows((2, 1), (-2, 1)), Decisions()), [[0, 1], [0, 1]], atol=1e-12
    )
    np.testing.assert_array_equal(gleanvid.without_context(rows((2, 1), (2, 1)), Decisions()), [[2, 1], [2, 1]])


def test_gleanvid_directions_are_new_only_above_both_floors() -> None:
    def found(*tokens: tuple[float, float, float]) -> int:
        return len(gleanvid.new_directions(rows(*tokens), [], Decisions()))

    assert found(E1, E1, (1, 1, 0)) == 2
    assert found(E1, (1, 5e-4, 0)) == 1  # 5e-4 of its own length
    assert found(E1, (1, 5e-3, 0)) == 2
    assert found((1e5, 0, 0), E2) == 1  # 1e-5 of the longest
    assert found((0, 0, 0)) == 0
    assert len(gleanvid.new_directions(rows(E1, E2), [np.array(E1)], Decisions())) == 1


# Mean (0, 0, 2), context direction e1. Without it: (0, 3, 0) twice, (0, -3, 4) twice, lengths 3, 3, 5, 5. Local
# contrast 3 / sqrt(109) = .287 in the first cell, (25 / 5 - 4) / sqrt(125) = .089 in the second. Each signal is 0 or 1.
FRAME = [(10, 3, 0), (-10, 3, 0), (10, -3, 4), (-10, -3, 4)]


def test_gleanvid_adds_local_contrast_and_unseen_energy() -> None:
    plan = gleanvid.reference(rows(*FRAME), (1, 1, 4), keep=2)
    np.testing.assert_allclose(plan.scores, [1, 1, 1, 1])
    assert plan.anchors == [0, 1]
    assert plan.tied


def test_gleanvid_a_frame_seen_before_gets_little_and_has_no_energy_left() -> None:
    # R = 16 and .16, Gini .49, alpha .404: 4 * (.404 / 2 + .596 * (.990, .010)) = 3.17, .83. Then both directions are
    # known, so the second frame has local contrast only.
    plan = gleanvid.reference(rows(*FRAME, *FRAME), (2, 1, 4), keep=4)
    assert plan.shares == [3, 1]
    assert plan.anchors == [0, 1, 2, 4]
    np.testing.assert_allclose(plan.scores, [1, 1, 1, 1, 1, 1, 0, 0])


def test_gleanvid_remembers_the_directions_of_all_frames_before() -> None:
    # R = 16, .16, .113, Gini .651, alpha .340: 3.81, .60, .59 of 5. The second frame's token shows nothing new.
    plan = gleanvid.reference(rows(*FRAME * 3), (3, 1, 4), keep=5)
    assert plan.shares == [4, 1, 0]
    np.testing.assert_allclose(plan.scores, [1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 0, 0])
