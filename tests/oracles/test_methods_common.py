# SPDX-License-Identifier: Apache-2.0
"""What the references of the methods share, against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from .by_hand import rows
from .methods.deciding import Decisions, budget_of, split
from .methods.plain import cosine, density_peaks, min_max


def test_budgets_read_the_decimal_as_written() -> None:
    assert budget_of(100, 0.07, None) == 7  # ceil(100 * 0.07) is 8 in floats
    assert budget_of(10, 0.21, None) == 3
    assert budget_of(3, 0.01, None) == 1
    assert budget_of(3, None, 9) == 3


@pytest.mark.parametrize(
    ("weights", "capacities", "budget", "expected"),
    [
        ([1, 1, 1], [9, 9, 9], 4, [2, 1, 1]),  # a tie goes to the earlier block
        ([1, 2], [9, 9], 5, [2, 3]),  # 1.67, 3.33
        ([3, 1], [2, 9], 8, [2, 6]),  # what the full block cannot take goes on
        ([0, 0], [3, 3], 3, [2, 1]),
        ([1, 1], [1, 1], 5, [1, 1]),
        ([1, 1], [0, 4], 3, [0, 3]),
        ([100, 1, 1], [50, 5, 5], 6, [6, 0, 0]),
    ],
)
def test_split_by_largest_remainder(
    weights: list[int], capacities: list[int], budget: int, expected: list[int]
) -> None:
    assert split(weights, capacities, budget) == expected
    if any(weights):
        assert Decisions().split([w / sum(weights) for w in weights], capacities, budget) == expected


def test_split_gives_one_each_first_where_asked() -> None:
    assert split([100, 1, 1], [50, 5, 5], 6, at_least_one=True) == [4, 1, 1]
    assert split([100, 1, 1], [50, 0, 5], 6, at_least_one=True) == [5, 0, 1]
    assert split([100, 1, 1], [50, 5, 5], 2, at_least_one=True) == [2, 0, 0]


def test_equal_real_weights_tie() -> None:
    assert Decisions().split([0.1 + 0.2, 0.3, 0.3], [5, 5, 5], 4) == [2, 1, 1]
    assert Decisions().split([0.3, 0.3, 0.1 + 0.2], [5, 5, 5], 4) == [2, 1, 1]


def test_decisions_know_ties_and_the_closest_call() -> None:
    decide = Decisions()
    assert decide.top([0.1, 0.5, 0.3, 0.5], 2) == [1, 3]
    assert decide.margin == pytest.approx(0.2)
    assert not decide.tied
    assert decide.best([0.1, 0.1 + 0.2, 0.3]) == 1  # 0.30000000000000004 and 0.3 are the same number here
    assert decide.tied
    assert not decide.above(0.1 + 0.2, 0.3)
    assert decide.above(0.55, 0.5)
    assert decide.margin == pytest.approx(0.05)
    assert decide.top([4.0, 8.0], 2, scale=8.0) == [1, 0]
    assert decide.margin == pytest.approx(0.05)  # nothing was left out, nothing decided


def test_cosine_of_zero_is_zero_and_min_max_of_a_constant_too() -> None:
    assert cosine(np.zeros(2), np.ones(2)) == 0.0
    assert cosine(np.array([3.0, 4.0]), np.array([1.0, 0.0])) == pytest.approx(0.6)
    np.testing.assert_array_equal(min_max([3.0, 3.0 + 1e-15]), [0.0, 0.0])
    np.testing.assert_allclose(min_max([1.0, 2.0, 5.0]), [0.0, 0.25, 1.0])


def test_density_peaks_by_hand() -> None:
    # Two neighbours, one of them the point itself: all as dense, so delta (11, 1, 1, 8, 1) and the index decide.
    points = list(rows(0, 1, 2, 10, 11))
    assert density_peaks(points, 1, 2, Decisions()) == ([0], [0, 0, 0, 0, 0])
    assert density_peaks(points, 2, 2, Decisions()) == ([0, 3], [0, 0, 0, 3, 3])
    assert density_peaks(points, 3, 2, Decisions()) == ([0, 1, 3], [0, 1, 1, 3, 3])
    # Scores -10/3 + log 1, -5/3 + log 3, -13/3 + log 2; the point 3 is nearer to 1 than to 0.
    assert density_peaks(list(rows(0, 1, 3)), 2, 7, Decisions()) == ([0, 1], [0, 1, 1])


def test_density_peaks_of_equal_points_are_the_first() -> None:
    assert density_peaks(list(rows(7, 7, 7, 7)), 2, 7, Decisions()) == ([0, 1], [0, 1, 0, 0])


def test_density_is_per_channel() -> None:
    # s * (0, 1, 3) has the second centre 0 if s^2 > log 2; four equal channels double lengths and sqrt(4) halves them.
    for channels in (1, 4):
        near = [np.full(channels, 0.82 * value) for value in (0, 1, 3)]
        far = [np.full(channels, 0.84 * value) for value in (0, 1, 3)]
        assert density_peaks(near, 2, 7, Decisions())[0] == [1, 2]
        assert density_peaks(far, 2, 7, Decisions())[0] == [0, 1]


def test_density_peaks_do_not_underflow() -> None:
    decide = Decisions()
    assert density_peaks(list(rows(0, 1e6, 10e6, 12e6)), 2, 2, decide)[0] == [0, 1]
    assert 0 < decide.margin < math.inf
