# SPDX-License-Identifier: Apache-2.0
"""References of methods that act inside the LLM against cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from .by_hand import rows, turned
from .methods import dart, fastv, holitom_inner, pyramiddrop, sparsevlm, v2drop
from .methods.schedule import counts


def attention(*heads: list[list[float]]) -> np.ndarray:
    """(heads, R, N)."""
    return np.array(heads, dtype=np.float64)


def test_fastv_reads_the_last_row_of_all_heads_alike() -> None:
    # Means of the last rows: .15, .3, .2, .3; a mean of all rows would put the first ahead, a maximum the last.
    seen = attention([[0.9, 0.0, 0.0, 0.0], [0.2, 0.3, 0.4, 0.0]], [[0.9, 0.0, 0.0, 0.0], [0.1, 0.3, 0.0, 0.6]])
    plan = fastv.reference(rows(1, 2, 3, 4), seen, keep=2)
    assert plan.anchors == [1, 3]
    assert plan.assign == [-1, 0, -1, 1]
    np.testing.assert_array_equal(plan.merged, rows(2, 4))
    assert plan.scores is not None
    np.testing.assert_allclose(plan.scores, [0.15, 0.3, 0.2, 0.3])
    assert plan.tied is False
    assert fastv.reference(rows(1, 2, 3, 4), seen, keep=1).anchors == [1]  # a tie: the lower index
    assert fastv.reference(rows(1, 2, 3, 4), seen, keep_ratio=0.51).anchors == [1, 2, 3]  # 2.04 rounded up


def test_a_schedule_counts_from_what_entered_its_first_stage() -> None:
    assert counts(8, (0.5, 0.25, 0.125)) == [4, 2, 1]
    assert counts(37, (0.5, 0.25, 0.125)) == [19, 10, 5]  # of what is left: 19, 5, 1
    assert counts(3, (0.5, 0.25, 0.125)) == [2, 1, 1]
    assert counts(10, (0.3, 0.7, 0.2)) == [3, 3, 2]  # nothing comes back
    assert counts(100, (0.07,)) == [7]


@pytest.mark.parametrize(("depth", "expected"), [(32, [7, 15, 23]), (28, [6, 13, 20]), (4, [0, 1, 2])])
def test_pyramiddrop_stages_are_quarters_of_the_depth(depth: int, expected: list[int]) -> None:
    assert pyramiddrop.last_layers(depth) == expected


def test_pyramiddrop_reads_each_stage_anew() -> None:
    first = [0.1, 0.4, 0.3, 0.2, 0.5, 0.0, 0.0, 0.0]
    second = [9.0, 0.1, 0.3, 0.3, 0.2, 9.0, 9.0, 9.0]  # what is gone does not come back
    third = [9.0, 9.0, 0.1, 0.2, 9.0, 9.0, 9.0, 9.0]
    asked: list[list[int]] = []

    def rows_at(stage: int, there: list[int]) -> np.ndarray:
        asked.append(there)
        return np.array((first, second, third)[stage])[None, None, there]

    result = pyramiddrop.reference(rows(*range(8)), rows_at)
    assert asked == [list(range(8)), [1, 2, 3, 4], [2, 3]]
    assert result.kept == [[1, 2, 3, 4], [2, 3], [3]]
    assert [plan.anchors for plan in result.plans] == [[1, 2, 3, 4], [1, 2], [1]]


def test_v2drop_keeps_what_a_layer_has_moved_furthest() -> None:
    # Moved by 5, 3, 5 and 6 (by the sum of absolute values: 7, 3, 5, 6); the second has turned most.
    after = rows((3, 4), (0, 1.5), (5, 0), (10, 6))
    before = rows((0, 0), (0, -1.5), (0, 0), (10, 0))
    plan = v2drop.reference(after, before, keep=2)
    assert plan.anchors == [0, 3]
    assert plan.tied
    np.testing.assert_array_equal(plan.merged, after[[0, 3]])
    assert plan.scores is not None
    np.testing.assert_allclose(plan.scores, [5, 3, 5, 6])


def test_v2drop_stages_count_from_what_entered_and_the_last_leaves_one() -> None:
    after = np.arange(16.0).reshape(8, 2)
    moves = np.array([[8, 7, 6, 5, 4, 3, 2, 1], [1, 2, 3, 4, 9, 9, 9, 9], [5, 5, 9, 9, 9, 9, 9, 9]], dtype=float)

    def states_at(stage: int, there: list[int]) -> tuple[np.ndarray, np.ndarray]:
        return after[there], after[there] - moves[stage, there, None]

    assert v2drop.schedule(8, states_at).kept == [[0, 1, 2, 3], [2, 3], [2]]


def test_dart_pivots_take_the_least_similar_of_what_is_left_in_turn() -> None:
    # Longest keys: 3 then 0 (by Euclidean length 0 and 1); they take turns in the order of the sequence.
    keys = np.array([[[5.0, 0.0], [4.5, 0.0], [1.0, 1.0], [2.0, 4.0], [0.0, 1.0], [1.0, 0.0]]])
    # 195 degrees is furthest from 0 and from 30; of what is left 160 is. Lengths of states are no matter.
    states = turned(0, 195, 90, 30, 160, 280) * [[1], [1], [1], [1], [3], [1]]
    plan = dart.reference(states, keys, keep=4, visual_pivots=2)
    assert plan.order == [0, 3, 1, 4]
    assert plan.anchors == [0, 1, 3, 4]
    assert dart.reference(states, keys, keep=3, visual_pivots=2).order == [0, 3, 1]
    assert dart.reference(states, keys, keep=1, visual_pivots=2).order == [3]


def test_dart_text_pivots_choose_but_are_not_kept() -> None:
    # Two heads: 1 + 6 is more than 3 + 3. Of the text the second is the longest; it stands at 90 degrees.
    keys = np.array([[[1.0], [3.0], [0.5], [0.5], [0.5]], [[6.0], [3.0], [0.5], [0.5], [0.5]]])
    states = turned(0, 45, 180, 270, 260)
    text_keys, text = np.array([[[1.0], [2.0], [-1.0]], [[0.0], [-2.0], [2.0]]]), turned(0, 90, 45)
    given = {"visual_pivots": 1, "text_pivots": 1}
    plan = dart.reference(states, keys, text, text_keys, keep=3, **given)
    assert plan.order == [0, 2, 3]
    # An odd pick is the first pivot's; nothing is taken twice.
    assert dart.reference(states, keys, text, text_keys, keep=4, **given).order == [0, 2, 4, 3]
    # More text pivots than there is text: all three.
    assert dart.reference(states, keys, text, text_keys, keep=4, visual_pivots=1).order == [0, 2, 4, 3]


def test_dart_of_features_alone() -> None:
    # Sums of absolute values: 3, 5.5, 2, 5.6; by Euclidean length 5.5 would be first.
    plan = dart.reference(rows((3, 0), (5.5, 0), (-2, 0), (2.8, 2.8)), keep=2, visual_pivots=1)
    assert plan.order == [3, 2]
    assert dart.reference(rows(1, 2, 3, 4, 5, 6), keep=5).order == [2, 3, 4, 5, 0]


def test_sparsevlm_raters_have_more_than_the_mean_of_the_softmax_over_text() -> None:
    # Products of the visual tokens with the text: (0, ln 2, 0) and (0, 0, ln 6): shares (1, 2, 1) / 4, (1, 1, 6) / 8.
    visual, text = rows((np.log(2), 0), (0, np.log(6))), rows((0, 0), (1, 0), (0, 1))
    np.testing.assert_allclose(sparsevlm.relevance(visual, text), [3 / 16, 5 / 16, 8 / 16])
    assert sparsevlm.raters(visual, text) == [2]
    assert sparsevlm.raters(visual[:1], text) == [1]
    assert sparsevlm.raters(visual, text[:1]) == [0]  # nobody is above the mean: all
    assert sparsevlm.raters(visual, text[[0, 0]]) == [0, 1]
    # Products are not scaled and not cosines: at a tenth of the length the visual tokens tell the rows less apart.
    assert sparsevlm.relevance(0.1 * visual, text)[2] < 0.4


def test_sparsevlm_counts() -> None:
    # The authors' on 144 tokens: 36 kept and 33 pooled make 40, 72 and 22 make 75; 14 and 40 make 19.
    assert sparsevlm.pool_of(144 - 36) == 33
    assert sparsevlm.parts(144, 40) == (36, 4)
    assert sparsevlm.clusters_of(144 - 14) == 5
    assert sparsevlm.parts(144, 19) == (15, 4)  # that is 19 as well, and keeps more
    assert sparsevlm.parts(144, 75) == (72, 3)
    assert sparsevlm.parts(144, 143) == (142, 1)
    # 144 dropped would be 5 clusters; there is room for none, one, three.
    assert [sparsevlm.parts(144, budget) for budget in (1, 2, 4)] == [(1, 0), (1, 1), (1, 3)]
    assert sparsevlm.parts(144, 6) == (1, 5)
    for total in range(2, 60):
        for budget in range(1, total):
            kept, clusters = sparsevlm.parts(total, budget)
            assert kept + clusters == budget
            assert clusters <= sparsevlm.pool_of(total - kept)


def test_sparsevlm_recycles_the_best_of_the_dropped() -> None:
    # One row rates; of 8 tokens 6 are dropped, the best two of them become one, the rest goes.
    visual, text = rows(*[(1, 0)] * 8), rows((0, 0), (9, 0))
    seen = attention([[1.0] * 8, [0.1, 0.9, 0.3, 0.2, 0.4, 0.5, 0.0, 0.1]])
    plan = sparsevlm.reference(rows(*range(8)), seen, visual, text, keep=3)
    assert plan.shares == [2, 1]
    assert plan.order == [1, 5, 2]  # of two points the first is the centre
    assert plan.assign == [-1, 0, 1, -1, 1, 2, -1, -1]
    np.testing.assert_array_equal(plan.merged, rows(1, 3, 5))
    alone = sparsevlm.reference(rows(*range(8)), seen, visual, text, keep=1)
    assert alone.assign == [-1, 0, -1, -1, -1, -1, -1, -1]


def test_sparsevlm_mean_is_over_raters_and_heads() -> None:
    visual, text = rows((1, 0), (1, 0), (1, 0)), rows((0, 0), (9, 0), (9, 0))
    # The second and third row rate: .3, .35 and .25 on average; the first row would put the last ahead.
    seen = attention(
        [[0.0, 0.0, 1.0], [0.5, 0.3, 0.0], [0.5, 0.3, 0.0]], [[0.0, 0.0, 1.0], [0.2, 0.3, 0.5], [0.0, 0.5, 0.5]]
    )
    plan = sparsevlm.reference(rows(1, 2, 3), seen, visual, text, keep=1)
    assert plan.anchors == [1]
    assert plan.scores is not None
    np.testing.assert_allclose(plan.scores, [0.3, 0.35, 0.25])


def test_holitom_inner_halves_once_for_every_token_it_takes_in() -> None:
    # Kept: 1 and 3. Like (1, 0) are the first and third, like (0, 8) the last.
    seen = attention([[0.1, 0.4, 0.1, 0.5, 0.2]])
    states = rows((4, 1), (1, 0), (6, 0), (0, 8), (0, 2))
    plan = holitom_inner.reference(states, seen, keep=2)
    assert plan.assign == [0, 0, 0, 1, 1]
    np.testing.assert_allclose(plan.merged, rows((1 / 4 + 4 / 4 + 6 / 2, 1 / 4), (0, 5)))


def test_holitom_inner_compares_with_the_kept_as_they_came() -> None:
    # 50 degrees goes to 0, not to 110. Had 0 become their mean before 65 is asked, that would go there too.
    plan = holitom_inner.reference(turned(0, 50, 65, 110), attention([[0.9, 0.1, 0.1, 0.8]]), keep=2)
    assert plan.assign == [0, 0, 1, 1]
    tie = holitom_inner.reference(rows((1, 0), (1, 1), (0, 1)), attention([[0.9, 0.1, 0.8]]), keep=2)
    assert tie.assign == [0, 0, 1]
