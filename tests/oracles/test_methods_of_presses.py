# SPDX-License-Identifier: Apache-2.0
"""References of presses on the KV cache (SnapKV, TOVA, KNorm) against cases worked out by hand."""

from __future__ import annotations

import numpy as np

from .methods import knorm, snapkv, tova


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
