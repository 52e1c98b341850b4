# SPDX-License-Identifier: Apache-2.0
"""Greedy references (Cover, DivPrune, FLoC, CDPruner) against cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from .by_hand import E1, E2, E3, rows, turned
from .clips import random_clip
from .methods import cdpruner, cover, divprune, floc
from .methods.deciding import Decisions


def test_cover() -> None:
    # Mean 4.8: 11 is farthest; then 0 (121 away), 2 (4), and 1 and 10 tie at 1. The 1 is as near to 0 as to 2.
    plan = cover.reference(rows(0, 1, 2, 10, 11), (1, 1, 5), keep=3)
    assert plan.order == [4, 0, 2]
    assert plan.assign == [0, 0, 1, 2, 2]
    np.testing.assert_array_equal(plan.merged, rows(0.5, 2, 10.5))
    np.testing.assert_array_equal(plan.scores, [121, 1, 4, 1, math.inf])
    assert cover.reference(rows(0, 1, 2, 10, 11), (1, 1, 5), keep=4).order == [4, 0, 2, 1]


def test_cover_ties_go_to_the_lower_index() -> None:
    assert cover.reference(rows(1, -1), (1, 1, 2), keep=1).anchors == [0]
    plan = cover.reference(rows(7, 7, 7, 7), (2, 1, 2), keep=2)
    assert plan.order == [0, 1]
    assert plan.assign == [0, 1, 0, 0]


def test_cover_spread() -> None:
    # Mean 6.2: 0 is farthest, then 11, then 9. Spread in the order of 0, .618, .236, .854, .472: 0, 2, 4, 1, 3.
    features = rows(0, 9, 1, 10, 11)
    assert cover.reference(features, (1, 1, 5), keep=3).order == [0, 4, 1]
    assert cover.reference(features, (1, 1, 5), keep=3, spread=0.5).order == [0, 2, 4]
    assert cover.reference(features, (1, 1, 5), keep=4, spread=0.5).order == [0, 4, 2, 1]


def test_cover_is_nested_and_a_pick_is_never_nearer_than_the_radius() -> None:
    clip = random_clip((3, 4, 4), 5, 60)
    longest = cover.reference(clip.features, clip.grid, keep=20)
    for keep in (1, 2, 7, 19):
        plan = cover.reference(clip.features, clip.grid, keep=keep)
        assert plan.order == longest.order[:keep]
        kept = [plan.scores[i] for i in plan.order]
        assert kept == sorted(kept, reverse=True)
        assert max(plan.scores[i] for i in range(48) if i not in plan.anchors) <= kept[-1]


def test_divprune() -> None:
    # Distance to the nearest other: .015, .015, .826, 1. Then to 180 degrees: 2, 1.98, 1; then .015 and 1.
    plan = divprune.reference(turned(0, 10, 90, 180), (1, 1, 4), keep=3)
    assert plan.order == [3, 0, 2]
    np.testing.assert_allclose(plan.scores, [2, 1 - math.cos(math.radians(10)), 1, math.inf])


def test_divprune_knows_directions_only_and_never_takes_a_token_twice() -> None:
    assert divprune.reference(rows(E1, (9, 0, 0), E2), (1, 1, 3), keep=2).anchors == [0, 2]
    assert divprune.reference(rows(*[E1] * 4), (2, 1, 2), keep=3).order == [0, 1, 2]
    distinct = np.random.default_rng(5).standard_normal((8, 4))
    assert len(divprune.reference(np.tile(distinct, (4, 1)), (4, 2, 4), keep=16).anchors) == 16
    zeros = rows(E1, E1, (0, 0, 0), (0, 0, 0))  # a zero is 1 from everything, the other zero too
    assert divprune.reference(zeros, (1, 1, 4), keep=3).order == [2, 0, 3]


def test_floc() -> None:
    # Sums of cosines 2, 2, 1; then the gains are 0 and 1.
    plan = floc.reference(rows(E1, E1, E2), (1, 1, 3), keep=2)
    assert plan.order == [0, 2]
    assert floc.objective(rows(E1, E1, E2), [0]) == 2
    assert floc.objective(rows(E1, E1, E2), [0, 2]) == 3


def test_floc_counts_negative_cosines_at_first_and_only_gains_later() -> None:
    # Sums 0, 1, 0 (not 1, 1, 1). Covered by e2: 0, 1, 0; e1 and -e1 each gain 1 by themselves and lose nothing.
    assert floc.reference(rows(E1, E2, (-1, 0, 0)), (1, 1, 3), keep=2).order == [1, 0]


def test_floc_splits_over_chunks_by_size() -> None:
    features = rows(E1, E1, E2, E2, E3, E3)
    plan = floc.reference(features, (3, 1, 2), keep=3, chunk=2)
    assert plan.shares == [2, 1]
    assert plan.anchors == [0, 2, 4]
    assert floc.reference(features, (3, 1, 2), keep=1, chunk=2).anchors == [0]


def test_cdpruner_scales_relevance_a_little_above_one() -> None:
    np.testing.assert_allclose(cdpruner.scaled_relevance(np.array([2.0, 3.0, 4.0])), [5e-7, 0.5000005, 1.0000005])
    np.testing.assert_array_equal(cdpruner.scaled_relevance(np.full(3, 0.1)), [1, 1, 1])


def test_cdpruner() -> None:
    features = rows(E1, E1, E2)
    constant = {"relevance": np.ones(3)}
    assert cdpruner.reference(features, (1, 1, 3), keep=2, signals=constant).order == [0, 2]
    # Diagonal 1e-12, 1, .25; after the second the first has nothing left.
    signals = {"relevance": np.array([0.0, 1.0, 0.5])}
    assert cdpruner.reference(features, (1, 1, 3), keep=2, signals=signals).order == [1, 2]
    # (4, 3) / 5 after e1 has 1 - .64 = .36 of its square left: .81 * .36 = .29 against .5 * .5 of e2.
    features = rows((1, 0), (4, 3), (0, 1))
    gram = np.array([1.0, 0.9, 0.5])[:, None] * np.array([[1, 0.8, 0], [0.8, 1, 0.6], [0, 0.6, 1]])
    kernel = gram * np.array([1.0, 0.9, 0.5])
    assert cdpruner.determinants(kernel, 2, Decisions()) == [0, 1]
    assert cdpruner.determinants(kernel, 3, Decisions()) == [0, 1]  # two dimensions are full


def test_cdpruner_fills_by_relevance_where_the_kernel_is_exhausted() -> None:
    signals = {"relevance": np.array([0.5, 0.9, 0.2, 0.9, 0.1])}
    plan = cdpruner.reference(rows(*[E1] * 5), (1, 1, 5), keep=3, signals=signals)
    assert plan.order == [1, 3, 0]


def test_cdpruner_by_text_prefers_what_is_unlike_it() -> None:
    text = {"text": rows((2, 0, 0), E3)}  # minus the mean cosine: -.5, 0, -.5
    plan = cdpruner.reference(rows(E1, E2, E3), (1, 1, 3), keep=1, relevance="text", signals=text)
    assert plan.anchors == [1]
    with pytest.raises(ValueError, match="relevance must be"):
        cdpruner.reference(rows(E1, E2, E3), (1, 1, 3), keep=1, relevance="image")
