# SPDX-License-Identifier: Apache-2.0
"""References that merge over places and time inside the LLM (FrameFusion, STTM) against cases worked out by hand."""

from __future__ import annotations

import numpy as np

from .by_hand import rows, turned
from .clips import areas_clip
from .methods import framefusion, sttm
from .methods.deciding import Decisions


def attention(*values: float) -> np.ndarray:
    return np.array(values)[None, None]


def test_framefusion_merges_runs_of_alike_neighbours_and_the_strongest_first() -> None:
    # Links of 30, 60 and 5 degrees; .6 is 53.
    states, seen = turned(0, 30, 90, 95), attention(0.1, 0.4, 0.2, 0.2)
    plan = framefusion.reference(states, [0] * 4, seen, keep=2)
    assert plan.assign == [0, 0, 1, 1]
    np.testing.assert_allclose(plan.merged, [states[:2].mean(axis=0), states[2:].mean(axis=0)])
    assert framefusion.reference(states, [0] * 4, seen, keep=3).assign == [0, 1, 2, 2]
    assert framefusion.reference(states, [0] * 4, seen, keep=1).assign == [0, 0, -1, -1]
    # Neighbours as they came decide: 80 degrees is 60 from the mean of what it joins.
    chain = framefusion.reference(turned(0, 40, 80), [0] * 3, attention(1, 1, 1), keep=1)
    assert chain.assign == [0, 0, 0]


def test_framefusion_threshold_is_enough_and_ties_go_to_the_lower_index() -> None:
    seen = attention(0.9, 0.1)
    assert framefusion.reference(rows((1, 0), (3, 4)), [0, 0], seen, keep=1).assign == [0, 0]
    assert framefusion.reference(rows((1, 0), (3, 4.1)), [0, 0], seen, keep=1).assign == [0, -1]
    assert framefusion.reference(rows(1, 1, 1, 1), [0, 1, 0, 1], attention(1, 1, 1, 1), keep=3).assign == [0, 1, 0, 2]


def test_framefusion_cuts_by_mean_attention_of_what_was_merged() -> None:
    states = turned(0, 0, 0, 90)
    assert framefusion.reference(states, [0] * 4, attention(0.2, 0.2, 0.2, 0.5), keep=1).anchors == [3]
    assert framefusion.reference(states, [0] * 4, attention(0.2, 0.3, 0.9, 0.4), keep=1).anchors == [0]


def test_framefusion_links_what_is_still_there() -> None:
    # Left of 3 frames of 2: (0, 0), (0, 1), (1, 0), (2, 1).
    states = turned(0, 90, 180, 90)
    plan = framefusion.reference(states, [0, 1, 0, 1], attention(1, 1, 1, 1), keep=3)
    assert plan.assign == [0, 1, 2, 1]
    # The same place of two videos is two places.
    two = framefusion.reference(turned(0, 5, 0, 5), [(0, 0), (0, 0), (1, 0), (1, 0)], attention(1, 1, 1, 1), keep=2)
    assert two.assign == [0, 0, 1, 1]
    assert framefusion.places_of((2, 1, 3)) == [0, 1, 2, 0, 1, 2]


def test_framefusion_stages() -> None:
    first = framefusion.merge_stage(turned(0, 30, 90, 95), [0] * 4, fewest=1)
    assert first.assign == [0, 0, 1, 1]
    # A merged token counts once, however many it is made of.
    again = framefusion.merge_stage(rows(1, 4), [0, 0], fewest=1)
    np.testing.assert_array_equal(again.merged, rows(2.5))
    seen = np.array([[[0.9, 0.0, 0.1], [0.0, 0.3, 0.1]], [[0.0, 0.1, 0.3], [0.0, 0.1, 0.5]]])
    assert framefusion.prune_stage(rows(1, 2, 3), seen, keep=1).anchors == [2]  # .225, .125, .25
    assert framefusion.prune_stage(rows(1, 2, 3), seen[:, -1:], keep=1).anchors == [2]


def test_framefusion_stages_merge_while_it_is_worth_it_and_then_cut() -> None:
    where = framefusion.places_of((2, 1, 6))
    asked: list[tuple[int, int]] = []

    def states_at(stage: int, there: list[int]) -> np.ndarray:
        alike = (2, 0, 3)[stage]  # so many places stand still in that stage
        return np.array([[1.0, 0.0] if i < 6 or i - 6 < alike else [0.0, 1.0] for i in there])

    def rows_at(stage: int, there: list[int]) -> np.ndarray:
        asked.append((stage, len(there)))
        return np.array([[[float(i) for i in there]]])

    result = framefusion.schedule(where, states_at, rows_at, 4, keep=7)
    assert result.kept == [[0, 1, 2, 3, 4, 5, 8, 9, 10, 11], [0, 1, 2, 3, 4, 5, 8, 9, 10, 11], [3, 4, 5, 8, 9, 10, 11]]
    assert asked == [(2, 10)]
    assert framefusion.schedule(where, states_at, rows_at, 4, keep=11).kept == [[0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11]]
    assert framefusion.schedule(where, states_at, rows_at, 1, keep=3).kept == [[9, 10, 11]]


def test_framefusion_of_features_alone_needs_no_threshold() -> None:
    assert framefusion.reference(turned(0, 90), [0, 0], keep=1).assign == [0, 0]
    # Links of 10 and 80 degrees; then the place that changes stays.
    states = turned(0, 0, 10, 80)
    assert framefusion.reference(states, [0, 1, 0, 1], keep=3).assign == [0, 1, 0, 2]
    assert framefusion.reference(states, [0, 1, 0, 1], keep=2).assign == [0, 1, 0, 1]
    assert framefusion.reference(states, [0, 1, 0, 1], keep=1).assign == [-1, 0, -1, 0]
    assert framefusion.reference(states, [0, 1, 2, 3], keep=2).anchors == [0, 1]


def test_sttm_pools_the_first_of_an_odd_side_alone() -> None:
    assert sttm.pairs(5) == [[0], [1, 2], [3, 4]]
    assert sttm.pairs(4) == [[0, 1], [2, 3]]
    x = np.arange(25.0).reshape(1, 25, 1)
    roots = sttm.roots_of(x, (1, 5, 5), 0, 0, False)
    assert [(root.rows, root.columns) for root in roots] == [
        ((a, b), (c, d)) for a, b in ((0, 0), (1, 4)) for c, d in ((0, 0), (1, 4))
    ]
    assert len(sttm.roots_of(x, (1, 5, 5), 0, 1, False)) == 9
    assert len(sttm.roots_of(x, (1, 5, 5), 0, 2, False)) == 25
    assert len(sttm.roots_of(x, (1, 5, 5), 0, 9, False)) == 25
    assert len(sttm.roots_of(x, (1, 1, 25), 0, 0, False)) == 25  # a side of 1 is not pooled


def test_sttm_means_of_children_or_of_tokens() -> None:
    # Seven columns are 1, 2, 2, 2 and then 3 and 4: the children at the border are smaller.
    x = np.zeros((1, 49, 1))
    x[0, 0] = 6.0
    corner = sttm.roots_of(x, (1, 7, 7), 0, 0, False)[0]
    assert corner.feature == 6 / 4
    assert corner.share == {0: 1 / 4, 1: 1 / 8, 2: 1 / 8, 7: 1 / 8, 14: 1 / 8, **dict.fromkeys((8, 9, 15, 16), 1 / 16)}
    weighted = sttm.roots_of(x, (1, 7, 7), 0, 0, True)[0]
    np.testing.assert_allclose(weighted.feature, 6 / 9)
    np.testing.assert_allclose(list(weighted.share.values()), 1 / 9)


def test_sttm_a_node_stays_whole_if_all_its_children_are_like_it() -> None:
    x = np.broadcast_to([1.0, 0.0], (1, 16, 2)).copy()
    x[0, [0, 1, 4, 5]] = [(4, 3), (4, 3), (4, -3), (4, -3)]  # the mean is (4, 0), at a cosine of .8 to each
    node = sttm.roots_of(x, (1, 4, 4), 0, 0, False)[0]
    np.testing.assert_array_equal(node.feature, (4, 0))
    assert len(sttm.whole(node, 0.8, Decisions())) == 1
    assert len(sttm.whole(node, 0.81, Decisions())) == 4
    assert len(sttm.whole(node, 0.8, Decisions(), beyond=True)) == 4


def test_sttm_asks_only_children_that_exist() -> None:
    # Four boxes of 1, 2, 2 and 4 equal tokens; the top left token is like none of the others.
    states = np.eye(4)[[0, 1, 1, 2, 3, 3, 2, 3, 3]]
    plan = sttm.reference(states, (1, 3, 3), root_level=0)
    assert plan.anchors == [0, 1, 3, 4]
    assert plan.assign == [0, 1, 1, 2, 3, 3, 2, 3, 3]
    assert sttm.reference(states, (1, 3, 3), root_level=1).anchors == list(range(9))


def two_frames() -> np.ndarray:
    """Quadrants a, a, b, c; in the first frame one token of the first is d, in the second that quadrant is 5 a."""
    a, b, c, d = np.eye(4)
    upper = [np.stack([a, a, a, a]), np.stack([a, d, a, a])]
    lower = [np.stack([b, b, c, c])] * 2
    later = [np.stack([5 * a, 5 * a, a, a])] * 2
    return np.concatenate([*upper, *lower, *later, *lower])


def test_sttm_links_nodes_that_lie_in_each_other() -> None:
    plan = sttm.reference(two_frames(), (2, 4, 4), root_level=0)
    # The first quadrant is four tokens, then one; three of the four are like it. The second is as alike, and elsewhere.
    assert plan.anchors == [0, 2, 5, 8, 10]
    first = [0, 0, 1, 1, 0, 2, 1, 1, 3, 3, 4, 4, 3, 3, 4, 4]
    assert plan.assign == first + [0 if place == 2 else place for place in first]
    np.testing.assert_allclose(plan.merged[0], [(1 + 1 + 1 + 5) / 4, 0, 0, 0])
    # Cosines of .95, .95, .95 and .32 to their mean: the lowest decides, not the average of .79.
    assert sttm.reference(two_frames(), (2, 4, 4), root_level=0, tau_s=0.7).anchors == plan.anchors
    assert sttm.reference(two_frames(), (2, 4, 4), root_level=0, tau_s=0.3).anchors == [0, 2, 8, 10]
    weighted = sttm.reference(two_frames(), (2, 4, 4), root_level=0, weighted=True)
    np.testing.assert_allclose(weighted.merged[0], [(3 + 4 * 5) / 7, 0, 0, 0])


def test_sttm_links_go_on_over_time_and_are_decided_before_any_merge() -> None:
    assert sttm.reference(turned(0, 50, 100), (3, 1, 1)).assign == [0, 0, 0]
    assert sttm.reference(turned(0, 60, 110), (3, 1, 1)).assign == [0, 1, 1]
    assert sttm.reference(rows((1, 0), (3, 4)), (2, 1, 1), tau_t=0.6).assign == [0, 0]
    assert sttm.reference(rows((1, 0), (0, 1), (1, 0)), (3, 1, 1)).assign == [0, 1, 2]  # not over a frame


def test_sttm_budget_takes_the_strongest_links_first() -> None:
    # Trees leave 11 nodes, six links of 1 and one of 0.
    def kept(budget: int) -> list[int]:
        return sttm.reference(two_frames(), (2, 4, 4), keep=budget, root_level=0).anchors

    assert kept(11) == [0, 1, 2, 4, 5, 8, 10, 16, 18, 24, 26]
    assert kept(10) == [0, 1, 2, 4, 5, 8, 10, 18, 24, 26]  # a tie: the earliest pair
    assert kept(9) == [0, 2, 4, 5, 8, 10, 18, 24, 26]
    assert kept(5) == [0, 2, 5, 8, 10]
    assert kept(4) == [0, 2, 8, 10]
    assert kept(3) == [0, 2, 8]  # no more links: all stand for 8 tokens


def test_sttm_budget_above_what_the_trees_leave_splits_the_least_alike() -> None:
    # The second quadrant is less alike than the first, and the others are of one colour. All whole at .5.
    angles = np.array([[0, 0, 0, 0], [0, 20, 0, 30], [90, 90, 180, 180], [90, 90, 180, 180]])
    states = turned(*angles.reshape(-1).tolist())
    assert sttm.reference(states, (1, 4, 4), keep=4, tau_s=0.5, root_level=0).anchors == [0, 2, 8, 10]
    plan = sttm.reference(states, (1, 4, 4), keep=7, tau_s=0.5, root_level=0)
    assert plan.anchors == [0, 2, 3, 6, 7, 8, 10]
    fewer = sttm.reference(states, (1, 4, 4), keep=5, tau_s=0.5, root_level=0)
    assert fewer.anchors == [0, 2, 3, 8, 10]  # seven nodes, of which the large ones stay
    assert fewer.assign[6:8] == [-1, -1]
    one_more = sttm.reference(states, (1, 4, 4), keep=8, tau_s=0.5, root_level=0)
    assert one_more.anchors == [0, 1, 2, 3, 4, 5, 8, 10]  # the first is split as well, which makes ten


def test_sttm_on_a_clip_with_areas_merges_both_ways() -> None:
    clip = areas_clip((4, 6, 7), 6, 48)
    nodes = sttm.reference(clip.features, clip.grid, tau_t=1.1)
    plan = sttm.reference(clip.features, clip.grid)
    assert 4 * 12 < len(nodes.anchors) < 4 * 42
    assert 12 < len(plan.anchors) < len(nodes.anchors)
