# SPDX-License-Identifier: Apache-2.0
"""The reference against cases worked out by hand; it is trusted by the other tests only because of these."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from .clips import Clip, degenerate_clips, random_clip, structured_clip
from .prunevid_reference import (
    dpc_knn,
    find_segments,
    portion,
    reference_budget_shares,
    reference_merge,
    reference_partition,
    refine_labels,
    runs_of,
    squared_distances,
    static_positions,
)

GRIDS = [random_clip((8, 4, 5), 6, 1), structured_clip((8, 5, 5), 8, 2), structured_clip((9, 5, 5), 8, 3, scenes=3)]
CLIPS = [*GRIDS, *degenerate_clips()]


def line(*values: float) -> list[np.ndarray]:
    """Points in one dimension."""
    return [np.array([float(value)]) for value in values]


def test_portion_reads_the_decimal_as_written() -> None:
    assert int(100 * 0.29) == 28  # what floats would give
    assert portion(100, 0.29) == 29
    assert portion(16, 0.25) == 4
    assert portion(3, 0.25) == 1  # at least one


# --- clustering ------------------------------------------------------------------------------------------------------


def test_dpc_breaks_ties_by_index() -> None:
    # Every nearest neighbour is at distance 1: all densities are -1/2, so only delta and the index decide.
    # delta = 11 (densest: largest distance), 1, 1, 8, 1.
    points = line(0, 1, 2, 10, 11)
    assert dpc_knn(points, 1, neighbours=2) == ([0], [0, 0, 0, 0, 0])
    assert dpc_knn(points, 2, neighbours=2) == ([0, 3], [0, 0, 0, 1, 1])
    assert dpc_knn(points, 3, neighbours=2) == ([0, 3, 1], [0, 2, 2, 1, 1])


def test_dpc_scores_by_hand_raw_and_relative() -> None:
    # densities -10/3, -5/3, -13/3; delta 1, 3, 2. Raw: -3.33 + log 1 beats -4.33 + log 2 for the second centre.
    # Relative (mean square 14/3): -10/14 + log(1/2.16) = -1.48 loses against -13/14 + log(2/2.16) = -1.01.
    points = line(0, 1, 3)
    assert dpc_knn(points, 2) == ([1, 0], [1, 0, 0])
    assert dpc_knn(points, 2, distance_scale="relative") == ([1, 2], [0, 0, 1])


def test_relative_distances_are_divided_by_their_root_mean_square_over_pairs() -> None:
    # Squared distances sum to 30, 18, 14, 50 a row: mean 112 / 12. The scores of 1 and 5 are -1.599 and -1.357;
    # counting the zeros of the diagonal (112 / 16) they would be -1.616 and -1.660.
    assert dpc_knn(line(0, 1, 2, 5), 2, distance_scale="relative") == ([2, 3], [0, 0, 0, 1])


def test_dpc_divides_by_the_dimension_and_by_the_divisor() -> None:
    # s * (0, 1, 3) has the second centre 0 if -10/3 s^2 + log s > -13/3 s^2 + log 2s, that is s^2 > log 2; else 3.
    first, last = ([1, 0], [1, 0, 0]), ([1, 2], [0, 0, 1])
    assert dpc_knn(line(0, 0.84, 2.52), 2) == first
    assert dpc_knn(line(0, 0.82, 2.46), 2) == last
    # In 9 equal coordinates a distance is 3 times that in one, and sqrt(9) takes it back.
    assert dpc_knn([np.full(9, value) for value in (0, 0.82, 2.46)], 2) == last
    assert dpc_knn([np.full(9, value) for value in (0, 0.84, 2.52)], 2) == first
    # s = 2/3: s^2 is 0.44.
    assert dpc_knn(line(0, 2, 6), 2, divisor=3) == last


def test_dpc_equidistant_point_goes_to_the_centre_of_lowest_index() -> None:
    # Centres in order of score: 10, 10.5, 0. The point 5 is as far from 10 (rank 0) as from 0 (rank 2, index 0).
    assert dpc_knn(line(0, 5, 10, 10.5), 3, neighbours=2) == ([2, 3, 0], [2, 2, 0, 1])


def test_dpc_keeps_every_centre_of_equal_points() -> None:
    assert dpc_knn(line(7, 7, 7, 7), 2) == ([0, 1], [0, 1, 0, 0])
    assert dpc_knn(line(7, 7, 7, 7), 2, distance_scale="relative") == ([0, 1], [0, 1, 0, 0])


@pytest.mark.parametrize("scale", ["raw", "relative"])
def test_dpc_with_as_many_clusters_as_points(scale: str) -> None:
    centres, labels = dpc_knn(line(3, 3, 5, -1), 9, distance_scale=scale)
    assert sorted(centres) == [0, 1, 2, 3]
    assert [centres[label] for label in labels] == [0, 1, 2, 3]


def test_dpc_of_one_point() -> None:
    assert dpc_knn(line(3), 1) == ([0], [0])
    assert dpc_knn(line(3), 1, distance_scale="relative") == ([0], [0])


def test_dpc_does_not_underflow() -> None:
    # exp(density) is 0 for all of these, yet the order of the scores stands: densities -5e11 and -2e12, tail last.
    points = line(0, 1e6, 10e6, 12e6)
    assert dpc_knn(points, 2, neighbours=2)[0] == [0, 1]
    assert dpc_knn([points[i] for i in (3, 2, 1, 0)], 2, neighbours=2)[0] == [2, 3]


def test_relative_distances_do_not_depend_on_the_scale() -> None:
    points = list(random_clip((1, 4, 5), 6, 5).features.astype(np.float64))
    expected = dpc_knn(points, 6, distance_scale="relative")
    for factor in (2.0**-14, 2.0**14):
        assert dpc_knn([factor * point for point in points], 6, distance_scale="relative") == expected


def test_distances_below_the_resolution_are_zero() -> None:
    # 4e-6 * (1e6 + 1e6 + ...) is 8: a squared distance of 1 is noise, one of 9 is not.
    near = squared_distances([np.array([1000.0, 0.0]), np.array([1000.0, 1.0]), np.array([1000.0, 3.0])])
    assert near[0] == [0.0, 0.0, 9.0]
    assert near[1] == [0.0, 0.0, 0.0]


# --- segments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("00110011", "00110011"),  # all runs tie: all kept
        ("0123", "0000"),  # nothing longer than one frame, no neighbour: label 0
        ("3210", "0000"),
        ("00010011", "00000011"),  # the shorter run of 0 and the lone 1 join the longer left run
        ("011222", "111222"),  # at the left end only the right neighbour
        ("222110", "222111"),  # at the right end only the left one
        ("11022", "11122"),  # a tie goes left
        ("110222", "112222"),  # the longer right run
        ("3114222", "1111222"),  # left run is 3 only because the first frame was relabelled before: tie, left
        ("111022522", "111122222"),  # right run stops at the 5: 2 < 3, though 5 frames end up as 2
        ("1102322", "1111122"),  # a block of several labels is one block
    ],
)
def test_refinement(labels: str, expected: str) -> None:
    assert refine_labels([int(label) for label in labels]) == [int(label) for label in expected]


def test_no_refined_segment_is_shorter_than_two_frames() -> None:
    for labels in itertools.product(range(3), repeat=7):
        runs = runs_of(refine_labels(list(labels)))
        assert min(stop - start for _, start, stop in runs) >= 2
        assert [start for _, start, _ in runs[1:]] == [stop for _, _, stop in runs[:-1]]


def frames(*values: float) -> np.ndarray:
    """(T, 2, 1) tokens of which frame t has the mean values[t]."""
    return np.array([[[value - 1], [value + 1]] for value in values])


def test_scenes_that_return_are_segments_of_their_own() -> None:
    assert find_segments(frames(1, 1, 5, 5, 1, 1, 5, 5), 0.25) == [(0, 2), (2, 4), (4, 6), (6, 8)]


def test_frame_embeddings_are_means_not_sums() -> None:
    # Frames in pairs at s * (0, 1, 3): the second centre is 3 for s = 0.5, but 0 for the sums over 2 tokens (s = 1).
    assert find_segments(frames(0, 0, 0.5, 0.5, 1.5, 1.5), 0.34) == [(0, 4), (4, 6)]


def test_segments_at_the_ends_of_the_ratio() -> None:
    tokens = frames(1, 2, 5, 6, 1)
    assert find_segments(tokens, 1.0) == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]
    assert find_segments(tokens, 0.1) == [(0, 5)]  # floor(0.5) is raised to one cluster
    assert find_segments(tokens[:1], 0.25) == [(0, 1)]


def test_frames_are_compared_by_their_means() -> None:
    # Frame means 0 0 0 9 9 9 although no token repeats.
    tokens = np.array([[[-t], [t]] for t in (1.0, 2.0, 3.0)] + [[[9 - t], [9 + t]] for t in (1.0, 2.0, 3.0)])
    assert find_segments(tokens, 0.34) == [(0, 3), (3, 6)]


# --- static and dynamic ----------------------------------------------------------------------------------------------


def test_static_threshold_is_inclusive_within_its_slack() -> None:
    segment = np.array([[[1.0, 0.0]], [[0.6, 0.8]]])  # cosine 0.6
    assert static_positions(segment, 0.6) == {0}
    assert static_positions(segment, 0.6000005) == {0}
    assert static_positions(segment, 0.600002) == set()
    assert static_positions(np.array([[[1.0, 0.0]], [[0.0, 1.0]]]), 1e-6) == {0}  # 0 >= 1e-6 - 1e-6


def test_static_score_is_the_mean_over_pairs_of_frames() -> None:
    # Cosines of (a,a), (a,b), (a,b) with a orthogonal to b: mean 1/3. Lengths do not matter.
    segment = np.array([[[1.0, 0.0]], [[5.0, 0.0]], [[0.0, 2.0]]])
    assert static_positions(segment, 0.333) == {0}
    assert static_positions(segment, 0.334) == set()


def test_zero_vectors_and_single_frames_are_never_static() -> None:
    assert static_positions(np.zeros((2, 1, 3)), 0.1) == set()
    assert static_positions(np.ones((1, 4, 3)), 0.0) == set()


def test_partition_of_a_tiny_clip_by_hand() -> None:
    # Position 0 keeps its direction, position 1 turns by 90 degrees.
    features = np.array([[1.0, 0.0], [1.0, 0.0], [3.0, 0.0], [0.0, 1.0]])
    partition = reference_partition(features, (2, 1, 2), 0.8, 0.5, 0.25)
    assert partition.segments == [(0, 2)]
    assert partition.static == [{0}]
    assert partition.anchors == [0, 1, 3]
    assert partition.assign == [0, 1, 0, 2]
    np.testing.assert_array_equal(reference_merge(features, partition), [[2.0, 0.0], [1.0, 0.0], [0.0, 1.0]])


def test_static_and_dynamic_groups_are_clustered_apart() -> None:
    # Two frames of 4 positions; 0 and 2 are static and far apart, 1 and 3 turn. One cluster per group.
    a, b, x, y = [4.0, 0.0], [9.0, 0.0], [1.0, 0.0], [0.0, 1.0]
    features = np.array([a, x, b, x, a, y, b, y])
    partition = reference_partition(features, (2, 1, 4), 0.8, 0.5, 0.25, min_tokens=1)
    assert partition.static == [{0, 2}]
    # Of two points both are equally dense, the first is "denser" and both have the same delta: the first is the centre.
    assert partition.anchors == [0, 1, 5]
    assert partition.assign == [0, 1, 0, 1, 0, 2, 0, 2]
    np.testing.assert_array_equal(reference_merge(features, partition), [[6.5, 0.0], [1.0, 0.0], [0.0, 1.0]])


def test_static_anchor_is_the_segments_first_frame_at_the_centre() -> None:
    # One row of three positions, 0, 1 and 3 along one axis: the middle one is the densest.
    frame = np.array([[10.0], [11.0], [13.0]])
    features = np.concatenate([-frame, -frame, frame, frame])
    partition = reference_partition(features, (4, 1, 3), 0.8, 0.34, 0.5, min_tokens=2)
    assert partition.segments == [(0, 2), (2, 4)]
    assert partition.static == [{0, 1, 2}, {0, 1, 2}]
    assert partition.anchors == [1, 7]
    assert partition.assign == [0] * 6 + [1] * 6


def test_static_tokens_are_means_over_time_not_sums() -> None:
    # As above with s = 0.5: positions at 10 + s * (0, 1, 3), two clusters.
    features = np.array([[10.0], [10.5], [11.5]] * 2)
    partition = reference_partition(features, (2, 1, 3), 0.8, 0.67, 0.5, min_tokens=2)
    assert partition.anchors == [1, 2]
    assert partition.assign == [0, 0, 1, 0, 0, 1]


def test_fully_static_clip_keeps_half_of_one_frame() -> None:
    frame = random_clip((1, 4, 4), 6, 9).features
    partition = reference_partition(np.tile(frame, (4, 1)), (4, 4, 4), 0.8, 0.5, 0.25)
    assert partition.segments == [(0, 4)]
    assert partition.static == [set(range(16))]
    assert len(partition.anchors) == 8
    assert max(partition.anchors) < 16
    assert partition.assign == partition.assign[:16] * 4


def test_one_frame_is_all_dynamic() -> None:
    clip = random_clip((1, 4, 4), 6, 10)
    partition = reference_partition(clip.features, clip.grid, 0.0, 0.5, 0.25)
    assert partition.static == [set()]
    assert len(partition.anchors) == 8


def test_fourteen_tokens_are_not_clustered_fifteen_are() -> None:
    few, more = random_clip((1, 2, 7), 6, 11), random_clip((1, 3, 5), 6, 12)
    assert reference_partition(few.features, few.grid, 0.8, 0.5, 0.25).anchors == list(range(14))
    assert len(reference_partition(more.features, more.grid, 0.8, 0.5, 0.25).anchors) == 7


def test_all_equal_tokens_keep_the_first_positions() -> None:
    features = np.full((4 * 16, 3), 2.0)
    partition = reference_partition(features, (4, 4, 4), 1.0, 0.5, 0.25)
    assert partition.static == [set(range(16))]
    assert partition.anchors == list(range(8))
    assert partition.assign == [*range(8), *[0] * 8] * 4


def test_all_zero_tokens_are_dynamic() -> None:
    partition = reference_partition(np.zeros((2 * 16, 3)), (2, 4, 4), 0.8, 0.5, 0.25)
    assert partition.static == [set()]
    assert partition.anchors == [*range(8), *range(16, 24)]
    assert partition.assign == [*range(8), *[0] * 8, *range(8, 16), *[8] * 8]


def test_segment_ratio_one_leaves_every_frame_alone() -> None:
    clip = structured_clip((4, 4, 4), 6, 13)
    partition = reference_partition(clip.features, clip.grid, 0.0, 1.0, 1.0)
    assert partition.segments == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert partition.anchors == partition.assign == list(range(64))


def test_features_must_fill_the_grid() -> None:
    with pytest.raises(ValueError, match="do not fill"):
        reference_partition(np.zeros((7, 3)), (2, 2, 2), 0.8, 0.5, 0.25)
    with pytest.raises(ValueError, match="distance_scale"):
        reference_partition(np.zeros((16, 3)), (1, 4, 4), 0.8, 0.5, 0.25, distance_scale="cosine")


# --- laws over many clips --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", CLIPS, ids=lambda clip: clip.name)
@pytest.mark.parametrize("distance_scale", ["raw", "relative"])
def test_partition_laws(clip: Clip, distance_scale: str) -> None:
    t, h, w = clip.grid
    partition = reference_partition(clip.features, clip.grid, 0.8, 0.5, 0.25, distance_scale=distance_scale)
    assert partition.anchors == sorted(set(partition.anchors))
    assert len(partition.assign) == t * h * w
    assert [partition.assign[anchor] for anchor in partition.anchors] == list(range(len(partition.anchors)))
    assert [start for start, _ in partition.segments] == [0, *(stop for _, stop in partition.segments[:-1])]
    assert partition.segments[-1][1] == t

    # A segment keeps g(static) + frames * g(dynamic) tokens.
    def kept(count: int) -> int:
        return count if count <= 14 else count // 2

    assert len(partition.anchors) == sum(
        kept(len(still)) + (stop - start) * kept(h * w - len(still))
        for (start, stop), still in zip(partition.segments, partition.static, strict=True)
    )

    merged = reference_merge(clip.features, partition)
    values, assign = clip.features.astype(np.float64), np.array(partition.assign)
    plain = np.stack([values[assign == place].mean(axis=0) for place in range(len(partition.anchors))])
    np.testing.assert_allclose(merged, plain, rtol=1e-12, atol=1e-12 * float(np.abs(values).max()))


def test_clips_are_deterministic_finite_and_not_vacuous() -> None:
    for clip, again in zip(degenerate_clips(), degenerate_clips(), strict=True):
        assert clip.name == again.name
        np.testing.assert_array_equal(clip.features, again.features)
        assert clip.features.dtype == np.float32
        assert np.isfinite(clip.features).all()
    assert len({clip.name for clip in CLIPS}) == len(CLIPS)

    clip = structured_clip((8, 6, 6), 8, 2)
    partition = reference_partition(clip.features, clip.grid, 0.8, 0.5, 0.25)
    assert partition.segments == [(0, 4), (4, 8)]  # the cut is found
    for still in partition.static:
        assert 15 <= len(still) <= 36 - 7  # both kinds occur, the static ones enough to be clustered


# --- budgets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "capacities", "budget", "expected"),
    [
        ([50, 30, 20], [50, 30, 20], 10, [5, 3, 2]),  # no remainder
        ([1, 1, 1], [9, 9, 9], 4, [2, 1, 1]),  # tie: the earlier block
        ([5, 3, 1], [9, 9, 9], 4, [2, 1, 1]),  # quotas 2.22 1.33 0.44: the largest remainder is the last
        ([6, 5, 4], [9, 9, 9], 5, [2, 2, 1]),  # quotas 2 1.67 1.33
        ([90, 5, 5], [10, 10, 10], 9, [7, 1, 1]),  # plain 8 1 0; one each, then 6 by weight: 5.4 0.3 0.3
        ([8, 1, 1], [2, 10, 10], 10, [2, 4, 4]),  # offered 8 1 1; 6 left over for two blocks
        ([6, 2, 1], [1, 3, 9], 9, [1, 3, 5]),  # offered 6 2 1; 5 left: 3.33 1.67 -> 3 2, room 1; 2 left to the last
        ([98, 1, 1], [98, 1, 1], 10, [8, 1, 1]),  # plain 10 0 0, but the budget has one for each
        ([98, 1, 1], [98, 1, 1], 2, [2, 0, 0]),  # it has not
        ([98, 1, 1], [98, 1, 1], 3, [1, 1, 1]),
        ([60, 30, 1], [60, 30, 1], 10, [6, 3, 1]),  # plain 7 3 0; one each, then 7 over 59 29 0: 4.67 2.33
        ([90, 0, 10], [90, 0, 10], 10, [9, 0, 1]),  # an empty block gets nothing and reserves nothing
        ([0, 0], [3, 3], 3, [2, 1]),  # no weights: all alike
        ([3, 2], [3, 2], 99, [3, 2]),  # never above the capacities
        ([3, 2], [3, 2], 0, [0, 0]),
        ([], [], 0, []),
    ],
)
def test_budget_shares(weights: list[int], capacities: list[int], budget: int, expected: list[int]) -> None:
    assert reference_budget_shares(weights, capacities, budget) == expected


def test_budget_shares_are_exact() -> None:
    for weights in itertools.product((0, 1, 4, 7), repeat=3):
        for capacities in itertools.product((0, 1, 5), repeat=3):
            for budget in range(17):
                shares = reference_budget_shares(list(weights), list(capacities), budget)
                assert sum(shares) == min(budget, sum(capacities))
                assert all(0 <= share <= room for share, room in zip(shares, capacities, strict=True))
                usable = [share for share, room in zip(shares, capacities, strict=True) if room > 0]
                assert budget < len(usable) or 0 not in usable
