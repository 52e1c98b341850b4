# SPDX-License-Identifier: Apache-2.0
"""References that merge (ToMe, AveragePool, HoliTom, VisionZip, FastVID, FlashVID) against cases worked out by hand."""

from __future__ import annotations

import numpy as np

from .by_hand import E1, E2, E3, rows, turned
from .methods import average_pool, fastvid, flashvid, holitom, tome, visionzip
from .methods.deciding import Decisions


def test_average_pool() -> None:
    plan = average_pool.reference(rows(*range(9)), (1, 3, 3))
    assert plan.anchors == [0, 2, 6, 8]
    assert plan.assign == [0, 0, 1, 0, 0, 1, 2, 2, 3]
    np.testing.assert_array_equal(plan.merged, rows(2, 3.5, 6.5, 8))
    assert average_pool.reference(rows(*range(6)), (3, 1, 2), window=(2, 1, 1)).assign == [0, 1, 0, 1, 2, 3]


def test_tome() -> None:
    # Even rows 0 and 90 degrees link to 0 (cosine 1) and 80 degrees (.985).
    features = turned(0, 0, 90, 80)
    plan = tome.reference(features, (1, 2, 2), keep=3)
    assert plan.anchors == [1, 2, 3]
    assert plan.assign == [0, 0, 1, 2]
    assert tome.reference(features, (1, 2, 2), keep=2).assign == [0, 0, 1, 1]
    last = tome.reference(features, (1, 2, 2), keep=1)  # another round
    assert last.anchors == [3]
    np.testing.assert_allclose(last.merged, [features.mean(axis=0)])


def test_tome_ties_go_to_the_lower_index() -> None:
    assert tome.reference(rows(*[E1] * 4), (2, 1, 2), keep=3).assign == [0, 0, 1, 2]
    assert tome.reference(rows(*[E1] * 4), (2, 1, 2), keep=2).assign == [0, 0, 0, 1]


def test_tome_rounds_run_in_raster_order_on_means_of_all_tokens() -> None:
    # Round 1: rows 0, 2, 4 of 5 link to row 1 (0.98, 0.77, -1) or 3; 0 -> 1 and 2 -> 3 (1). Round 2: rows 1, 3, 4;
    # row 1 is at 5 degrees, 4 at 190; both link to 3 at 40 with .82 and -.87, so 1 goes into 3.
    plan = tome.reference(turned(0, 10, 40, 40, 190), (5, 1, 1), keep=2)
    assert plan.anchors == [3, 4]
    assert plan.assign == [0, 0, 0, 0, 1]


def test_tome_links_means_not_anchors() -> None:
    # Round 1: 0 -> 1, 2 -> 3, 4 -> 5. Round 2: at 30, 90 and 140 degrees the last is nearer to the middle (by row 1
    # itself, at 60 degrees, it would be the first).
    assert tome.reference(turned(0, 60, 90, 90, 140, 140), (6, 1, 1), keep=2).assign == [0, 0, 1, 1, 1, 1]


def test_holitom_windows_prefer_single_frames_then_shorter_ones() -> None:
    # (0, 1) saves 2 * 1, (0, 2) saves 1 * 2: the same, so the third frame stands alone.
    assert holitom.best_windows(np.array([[1, 1], [1, 0], [0, 0]], dtype=bool), 4) == [(0, 1), (2, 2), (3, 3)]
    assert holitom.best_windows(np.ones((3, 1), dtype=bool), 4) == [(0, 3)]
    assert holitom.best_windows(np.zeros((3, 1), dtype=bool), 4) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    # One place over all four frames saves 3; two places twice over two frames save 4.
    assert holitom.best_windows(np.array([[1, 1], [1, 0], [1, 1]], dtype=bool), 4) == [(0, 1), (2, 3)]


def column(*values: float) -> dict[str, np.ndarray]:
    return {"encoder_column": np.array(values), "encoder_pooled": np.array(values)}


def test_holitom_merges_what_stands_still_and_cuts_the_rest_by_attention() -> None:
    features = rows(E1, E1, (3, 0, 0), E2)
    signals = column(0.1, 0.1, 0.1, 0.1)
    plan = holitom.reference(features, (2, 1, 2), keep=3, signals=signals)
    assert plan.assign == [0, 1, 0, 2]
    np.testing.assert_array_equal(plan.merged, rows((2, 0, 0), E1, E2))
    # A third of 2 for each of three blocks: the first two have one.
    assert holitom.reference(features, (2, 1, 2), keep=2, signals=signals).assign == [0, 1, 0, -1]
    one = holitom.reference(rows(E1, E2, E3), (1, 1, 3), keep=2, signals=column(0.1, 0.3, 0.3))
    assert one.anchors == [1, 2]
    assert holitom.reference(rows(E1, E2, E3), (1, 1, 3), keep=1, signals=column(0.1, 0.3, 0.3)).anchors == [1]
    strict = rows((1, 0), (4, 3))  # cosine .8 does not stand still at .8
    assert holitom.reference(strict, (2, 1, 1), keep=1, tau=0.8, signals=column(0.1, 0.2)).assign == [0, -1]
    assert holitom.reference(strict, (2, 1, 1), keep=1, tau=0.79, signals=column(0.1, 0.2)).assign == [0, 0]


def test_holitom_weighs_a_centre_against_the_others_of_its_cluster() -> None:
    # With one neighbour besides itself 10 is as dense as 11, and the first: the centre. .6 * 10 + .4 * (11 + 13) / 2.
    plan = holitom.reference(rows(10, 11, 13, 10, 11, 13), (2, 1, 3), keep=1, signals=column(*[0.1] * 6))
    assert plan.assign == [0] * 6
    np.testing.assert_allclose(plan.merged, [[10.8]])
    pair = holitom.reference(rows(10, 11, 13, 10, 11, 13), (2, 1, 3), keep=2, signals=column(*[0.1] * 6))
    # Scores -.5 + log 3, -.5 + log 1, -2 + log 2.
    assert pair.assign == [0, 1, 1] * 2
    np.testing.assert_allclose(pair.merged, [[10], [11.8]])


def test_holitom_lets_the_weakest_still_places_move_where_too_few_would_be_left() -> None:
    # Both places stand still at .7, which leaves 2. The first has a link of .8.
    features = rows((1, 0), (0, 1), (4, 3), (0, 1), (4, 3), (0, 1))
    plan = holitom.reference(features, (3, 1, 2), keep=4, tau=0.7, signals=column(*[0.1] * 6))
    assert plan.assign == [0, 1, 2, 1, 3, 1]
    assert holitom.reference(features, (3, 1, 2), keep=2, tau=0.7, signals=column(*[0.1] * 6)).assign == [0, 1] * 3


def zip_signals(attention: list[float], keys: np.ndarray) -> dict[str, np.ndarray]:
    return {"encoder_column": np.array(attention), "encoder_keys": keys}


def test_visionzip_default_proportion() -> None:
    # Of 4 tokens 3.375 are dominant: 3, and one contextual, the first of the rest.
    features = rows(*range(8))
    signals = zip_signals([0.9, 0.1, 0.8, 0.1, 0.7, 0.1, 0.1, 0.1], rows(*[1] * 8))
    plan = visionzip.reference(features, (1, 2, 4), keep=4, signals=signals)
    assert plan.assign == [0, 1, 2, 1, 3, 1, 1, 1]
    np.testing.assert_allclose(plan.merged, rows(0, 22 / 5, 2, 4))
    published = visionzip.reference(features, (1, 2, 4), keep=4, published=True, signals=signals)
    np.testing.assert_allclose(published.merged, rows(0, 1 + 21 / 4, 2, 4))


def test_visionzip_targets_are_evenly_spaced_and_keys_decide_not_features() -> None:
    # Dominant 0 and 1 (a tie among all); of the rest 2..7 every third is a target: 2 and 5.
    keys = turned(0, 0, 0, 90, 10, 90, 80, 45)
    plan = visionzip.reference(
        rows(*range(8)), (1, 2, 4), keep=4, dominant=1, contextual=1, signals=zip_signals([0.1] * 8, keys)
    )
    assert plan.anchors == [0, 1, 2, 5]
    assert plan.assign == [0, 1, 2, 3, 2, 3, 3, 2]  # 45 degrees: a tie
    one = visionzip.reference(rows(*range(4)), (2, 1, 2), keep=2, signals=zip_signals([0.1, 0.4, 0.3, 0.2], keys[:4]))
    assert one.assign == [-1, 0, 1, -1]
    # Of two tokens 1.69 would be dominant; one is contextual all the same.
    two = visionzip.reference(rows(*range(4)), (1, 2, 2), keep=2, signals=zip_signals([0.1, 0.4, 0.3, 0.2], keys[:4]))
    assert two.assign == [0, 1, 0, 0]


def test_visionzip_rounds_half_to_even() -> None:
    # 27/32 of 16 is 13.5: 14 dominant ones, 2 contextual; of 48 it is 40.5: 40 and 8.
    for share, dominant in ((16, 14), (48, 40)):
        attention = np.linspace(1, 2, 60)[::-1].tolist()
        signals = zip_signals(attention, np.ones((60, 1)))
        plan = visionzip.reference(np.ones((60, 1)), (1, 6, 10), keep=share, signals=signals)
        step = (60 - dominant) // (share - dominant)
        assert plan.anchors == [*range(dominant), *[dominant + step * i for i in range(share - dominant)]]


def test_fastvid_segments() -> None:
    assert fastvid.segments_of([0.9, 0.5, 0.99], 2, 0.84, Decisions()) == [[0, 1], [2, 3]]
    assert fastvid.segments_of([0.9, 0.5, 0.99], 3, 0.84, Decisions()) == [[0], [1], [2, 3]]
    assert fastvid.segments_of([0.9, 0.5, 0.84], 1, 0.84, Decisions()) == [[0, 1], [2, 3]]
    assert fastvid.segments_of([0.9, 0.9], 2, 0.84, Decisions()) == [[0], [1, 2]]
    assert fastvid.segments_of([0.9], 8, 0.84, Decisions()) == [[0], [1]]
    assert fastvid.segments_of([], 8, 0.84, Decisions()) == [[0]]


def test_fastvid_divides_a_segment() -> None:
    everyone = list(range(8))
    ten = fastvid.divide(10, everyone, 4, everyone, 0.4, 4)
    assert ten.contextual == {0: 2, 4: 2}
    assert ten.salient == dict(enumerate([1, 1, 1, 1, 1, 1, 0, 0]))
    assert fastvid.divide(8, everyone, 4, everyone, 0.4, 4).contextual == {4: 2, 0: 1}
    assert fastvid.divide(1, everyone, 4, everyone, 0.4, 4).contextual == {4: 1, 0: 0}
    # One carrying frame of 4 tokens takes 2 contextual ones, what is over is salient; beyond 4 the other frames help.
    assert fastvid.divide(4, [0, 1, 2], 4, [2], 0.9, 4) == fastvid._Parts({2: 2, 0: 0, 1: 0}, {2: 2})
    assert fastvid.divide(7, [0, 1, 2], 4, [2], 0.4, 4) == fastvid._Parts({2: 2, 0: 2, 1: 1}, {2: 2})
    assert fastvid.divide(0, [0], 4, [0], 0.4, 4) == fastvid._Parts({0: 0}, {0: 0})


def test_fastvid_merges_into_the_densest_of_the_rest() -> None:
    # Salient e1; of (0, 2), (0, 3), (0, 5) the middle is densest and takes the others with .4.
    features = rows((1, 0), (0, 2), (0, 3), (0, 5))
    plan = fastvid.reference(features, (1, 2, 2), keep=2, signals=column(0.7, 0.1, 0.1, 0.1))
    assert plan.assign == [0, 1, 1, 1]
    np.testing.assert_allclose(plan.merged, rows((1, 0), (0, 3.2)))


def test_fastvid_lets_a_token_feed_an_anchor_of_every_anchor_frame() -> None:
    features = rows(E1, E2, (0, 2, 0), E1, E3, (0, 0, 4))
    plan = fastvid.reference(
        features,
        (2, 1, 3),
        keep=4,
        segments=1,
        tau=-1,
        ignore=2,
        context_ratio=0.5,
        frame_step=1,
        signals=column(0.8, 0.1, 0.1, 0.8, 0.1, 0.1),
    )
    assert plan.anchors == [0, 1, 3, 4]
    assert plan.assign == [0, 1, 1, 2, 3, 3]
    third = 0.4 / 3
    expected = [
        [1, 0, 0, 0, 0, 0],
        [0, 0.6, third, 0, third, third],
        [0, 0, 0, 1, 0, 0],
        [0, third, third, 0, 0.6, third],
    ]
    np.testing.assert_allclose(plan.mixing, expected)
    np.testing.assert_allclose(plan.merged[1], [0, 0.6 + 2 * third, 5 * third])


def test_fastvid_only_the_last_of_alike_frames_carries_tokens() -> None:
    features = rows(E1, E2, E1, E2, E1, E2)
    signals = column(0.9, 0.1, 0.9, 0.1, 0.9, 0.1)
    plan = fastvid.reference(features, (3, 1, 2), keep=1, segments=1, signals=signals)
    assert plan.anchors == [4]  # contextual comes first, equal points: the first
    full = fastvid.reference(features, (3, 1, 2), keep=4, segments=1, signals=signals)
    assert full.anchors == [0, 2, 4, 5]


def test_flashvid_segments() -> None:
    links = [0.95, 0.5, 0.99, 0.7]
    assert flashvid.segments_of(links, 0.9, 1, Decisions()) == [[0, 1], [2, 3], [4]]
    assert flashvid.segments_of(links, 0.9, 4, Decisions()) == [[0], [1], [2, 3], [4]]
    assert flashvid.segments_of(links, 0.9, 8, Decisions()) == [[0], [1], [2], [3], [4]]
    assert flashvid.segments_of([0.9], 0.9, 1, Decisions()) == [[0, 1]]


def test_flashvid_selects_by_distance_times_attention() -> None:
    angles = turned(0, 10, 90, 180)
    assert flashvid.attended_and_diverse(angles, np.ones(4), 3, Decisions()) == [3, 0, 2]
    assert flashvid.attended_and_diverse(angles, np.array([1.0, 1.0, 2.0, 1.0]), 1, Decisions()) == [2]
    assert flashvid.attended_and_diverse(rows(E1, E1), np.ones(2), 2, Decisions()) == [0, 1]
    assert flashvid.attended_and_diverse(rows(E1), np.ones(1), 1, Decisions()) == [0]


ONE_SEGMENT = {"alpha": 0.5, "min_segment_num": 1, "segment_threshold": -1}
REPEATED = rows(E1, E2, E3, E1, E2, E3)
FIRST_PLACE = column(1, 0.1, 0.1, 1, 0.1, 0.1)


def test_flashvid_trees_go_back_to_the_earliest_token() -> None:
    plan = flashvid.reference(REPEATED, (2, 1, 3), keep=4, signals=FIRST_PLACE, **ONE_SEGMENT)
    assert plan.shares == [2, 2]
    assert plan.assign == [0, 1, 2, 3, 1, 2]  # one token of each frame is selected: 0 and 3
    # Of 5, 3 and 2: 0, 1 and 3 are selected; 4 has no match left.
    plan = flashvid.reference(REPEATED, (2, 1, 3), keep=5, signals=FIRST_PLACE, **ONE_SEGMENT)
    assert plan.assign == [0, 1, 2, 3, 4, 2]


def test_flashvid_takes_only_the_strongest_links_where_few_trees_would_be_left() -> None:
    equal = rows(*[E1] * 6)
    plan = flashvid.reference(equal, (2, 1, 3), keep=5, alpha=0.2, min_segment_num=1, signals=column(*[0.1] * 6))
    assert plan.assign == [0, 1, 2, 3, 1, 4]


def test_flashvid_clusters_roots_where_trees_are_too_many() -> None:
    plan = flashvid.reference(REPEATED, (2, 1, 3), keep=3, signals=FIRST_PLACE, **ONE_SEGMENT)
    assert plan.shares == [2, 1]
    assert plan.assign == [0, 1, 1, 2, 1, 1]
    np.testing.assert_array_equal(plan.merged[1], [0, 0.5, 0.5])
    plan = flashvid.reference(REPEATED, (2, 1, 3), keep=2, signals=FIRST_PLACE, **ONE_SEGMENT)
    assert plan.assign == [0, -1, -1, 1, -1, -1]


def test_flashvid_weak_links_do_not_merge() -> None:
    # The last token is .707 like 1 and 2. Three roots for two places: one for each frame.
    features = rows(E1, E2, E3, E1, E2, (0, 1, 1))
    plan = flashvid.reference(features, (2, 1, 3), keep=4, signals=FIRST_PLACE, **ONE_SEGMENT)
    assert plan.assign == [0, 1, 1, 2, 1, 3]
    plan = flashvid.reference(features, (2, 1, 3), keep=4, signals=FIRST_PLACE, temporal_threshold=0.7, **ONE_SEGMENT)
    assert plan.assign == [0, 1, 2, 3, 1, 1]


def test_flashvid_looks_at_a_neighbour_even_for_one_cluster() -> None:
    # Squares of the nearest distance 4, 1, 1: the second is densest and first. (The first, if only itself counted.)
    features = rows((1, 0), (0, 5), (0, 3), (0, 2))
    plan = flashvid.reference(features, (1, 2, 2), keep=2, signals=column(1, 0.1, 0.1, 0.1), **ONE_SEGMENT)
    assert plan.assign == [0, 1, 1, 1]
    assert plan.anchors == [0, 2]


def test_flashvid_trees_end_at_a_cut() -> None:
    segments = ONE_SEGMENT | {"min_segment_num": 2}
    plan = flashvid.reference(REPEATED, (2, 1, 3), keep=4, signals=FIRST_PLACE, **segments)
    assert plan.assign == [0, 1, 1, 2, 3, 3]
