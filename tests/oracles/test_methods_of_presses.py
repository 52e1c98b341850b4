# SPDX-License-Identifier: Apache-2.0
"""References of presses on the KV cache (SnapKV, TOVA, KNorm, InfiniPot-V) against cases worked out by hand."""

from __future__ import annotations

import numpy as np

from .by_hand import turned
from .methods import infinipotv, knorm, snapkv, tova


def test_snapkv_smooths_over_neighbours_with_zeros_beyond_the_ends() -> None:
    assert snapkv.smoothed([3.0, 0.0, 0.0, 6.0, 0.0], 3) == [1.0, 1.0, 2.0, 2.0, 2.0]
    assert snapkv.smoothed([3.0, 0.0, 0.0, 6.0, 0.0], 1) == [3.0, 0.0, 0.0, 6.0, 0.0]
    assert snapkv.smoothed([5.0], 5) == [1.0]


def test_snapkv_chooses_for_each_key_value_head_from_the_heads_it_serves() -> None:
    # Four heads, two rows; the first row is outside the window of one.
    seen = np.zeros((4, 2, 6))
    seen[:, 0, 5] = 1.0
    seen[0, 1] = [0.0, 0.3, 0.0, 0.0, 0.0, 0.0]
    seen[1, 1] = [0.0, 0.0, 0.0, 0.0, 0.4, 0.0]
    seen[2, 1] = [0.1, 0.0, 0.0, 0.0, 0.0, 0.0]
    seen[3, 1] = [0.1, 0.0, 0.0, 0.6, 0.0, 0.0]
    plan = snapkv.reference(seen, 2, keep=2, window=1, kernel=1)
    assert plan.kept == [[1, 4], [0, 3]]
    assert plan.scores is not None
    np.testing.assert_allclose(plan.scores[:, [0, 1, 3, 4]], [[0, 0.15, 0, 0.2], [0.1, 0, 0.3, 0]])
    assert snapkv.reference(seen, 2, keep=1, kernel=1).kept == [[5], [5]]  # both rows: their mean
    two = np.array([[[0.5, 0.0, 0.3], [0.0, 0.1, 0.3]]])
    assert snapkv.reference(two, 1, keep=1, kernel=1).kept == [[2]]  # .25, .05, .3
    # With three neighbours the head's peak takes those beside it along, the first of equals first.
    assert snapkv.reference(seen, 2, keep=2, window=1, kernel=3).kept == [[3, 4], [2, 3]]
    # 0.4 is at 3..5; 0.3 at 0..2: the third from the left has both at kernel 5.
    assert snapkv.reference(seen, 1, keep=1, window=1).kept == [[2]]


def test_tova_has_one_choice_for_all_heads() -> None:
    seen = np.array([[[0.9, 0.0, 0.0], [0.1, 0.2, 0.4]], [[0.9, 0.0, 0.0], [0.5, 0.4, 0.0]]])
    plan = tova.reference(seen, keep=2)
    assert plan.kept == [[0, 1]]  # .3, .3, .2
    assert tova.reference(seen, keep_ratio=0.01).kept == [[0]]


def test_knorm_keeps_short_keys() -> None:
    keys = np.array(
        [[[3.0, 4.0], [-6.0, 0.0], [0.0, 5.0], [1.0, 1.0]], [[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [0.0, 4.0]]]
    )
    plan = knorm.reference(keys, keep=2)
    assert plan.kept == [[0, 3], [0, 1]]  # 5 and 5 tie; by the sum of absolute values 2 would come before 0
    assert plan.tied
    assert plan.scores is not None
    np.testing.assert_allclose(plan.scores[0], [-5, -6, -5, -(2**0.5)])


def test_infinipotv_half_by_time_half_by_value() -> None:
    # Four frames of two places; the last is recent and whole. At place 0 the others are 90, 20 and 60 degrees from it,
    # at place 1 they are 10, 100 and 40.
    keys = turned(90, 10, 20, 100, 60, 40, 0, 0)[None]
    values = np.array([[(1, 0), (-9, 0), (2, 0), (3, 0), (5, 5), (0, 0), (99, 0), (0, 0)]], dtype=float)
    grid = (4, 1, 2)
    plan = infinipotv.reference(keys, values, grid, keep=6)
    assert plan.forced == [[3, 6, 7]]
    assert plan.kept == [[1, 2, 3, 4, 6, 7]]  # -9, 5 and 5 (7.1), 2; 99 has its place already
    # The odd one of five is the first half's; a half of one holds no frame: the least alike goes on.
    assert infinipotv.reference(keys, values, grid, keep=5).forced == [[3, 6, 7]]
    assert infinipotv.reference(keys, values, grid, keep=2).kept == [[3, 6]]
    assert infinipotv.reference(keys, values, grid, keep=1).kept == [[3]]
    assert infinipotv.reference(keys, values, grid, keep=2, tar_ratio=0.0).kept == [[1, 6]]


def test_infinipotv_compares_with_the_mean_over_recent_frames() -> None:
    # Recent at 0 and 90 degrees: the cosines of 45 and 200 degrees sum to 1.41 and -1.28, those of 300 to -.37.
    assert infinipotv.recent_frames(5, 0.4) == [3, 4]
    assert infinipotv.recent_frames(7, 0.25) == [6]
    assert infinipotv.recent_frames(3, 0.25) == [2]
    keys, values = turned(45, 300, 200, 0, 90)[None], np.zeros((1, 5, 1))
    np.testing.assert_allclose(
        infinipotv.likeness(keys[0], (5, 1, 1), [3, 4], range(5)), [0.7071, -0.183, -0.6409, 0.5, 0.5], atol=1e-4
    )
    alone = infinipotv.reference(keys, values, (5, 1, 1), keep=2, query_ratio=0.4)
    assert alone.forced == [[4]]  # the latest of two recent frames is what fits
    assert infinipotv.reference(keys, values, (5, 1, 1), keep=3, query_ratio=0.4, tar_ratio=1.0).kept == [[2, 3, 4]]


def test_infinipotv_decides_for_each_head_and_ties_go_to_the_lower_index() -> None:
    keys = np.stack([turned(90, 0, 0, 0), turned(0, 90, 0, 0)])
    values = np.ones((2, 4, 1))
    plan = infinipotv.reference(keys, values, (4, 1, 1), keep=3, tar_ratio=0.67)
    assert plan.forced == [[0, 3], [1, 3]]
    assert plan.kept == [[0, 1, 3], [0, 1, 3]]
    # One frame: values alone.
    assert infinipotv.reference(keys, values, (1, 2, 2), keep=2).kept == [[0, 1], [0, 1]]


def test_infinipotv_of_a_video_that_was_cut_before() -> None:
    # Left of 3 x 2 places: (0, 0), (0, 1), (1, 1) and (2, 1), the last recent. (0, 0) has nothing to compare with: 0.
    keys, values = turned(0, 30, 100, 0)[None], np.zeros((1, 4, 1))
    assert infinipotv.reference(keys, values, (3, 1, 2), keep=3, tar_ratio=1.0, ids=[0, 1, 3, 5]).kept == [[0, 2, 3]]
