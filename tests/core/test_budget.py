# SPDX-License-Identifier: Apache-2.0
"""Budgets are exact."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles.prunevid_reference import reference_budget_shares

from tokenprune.budget import Budget, as_fraction, split_budget
from tokenprune.errors import BudgetError, InvalidValueError

ratios = st.decimals("0.0001", "1", places=4).map(float)
blocks = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 12)), max_size=12)


@given(ratios, st.integers(0, 100_000))
def test_a_ratio_keeps_the_ceiling_of_the_decimal_as_written(ratio: float, total: int) -> None:
    exact = int((Decimal(str(ratio)) * total).to_integral_value(ROUND_CEILING))
    assert Budget(keep_ratio=ratio).count(total) == exact


@pytest.mark.parametrize(
    ("ratio", "total", "kept"), [(0.1, 10, 1), (0.55, 100, 55), (0.07, 100, 7), (0.3, 1, 1), (1, 7, 7)]
)
def test_ratios_that_binary_fractions_round_up(ratio: float, total: int, kept: int) -> None:
    assert Budget(keep_ratio=ratio).count(total) == kept


def test_the_float_product_would_have_been_wrong() -> None:
    assert math.ceil(0.07 * 100) == 8  # what the test above would not see if floats were used and happened to be right


@given(st.integers(1, 100), st.integers(0, 200))
def test_a_count_is_capped_at_the_total(keep: int, total: int) -> None:
    assert Budget(keep=keep).count(total) == min(keep, total)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"keep_ratio": 0.5, "keep": 3},
        {"keep_ratio": 0.0},
        {"keep_ratio": -0.1},
        {"keep_ratio": 1.0001},
        {"keep_ratio": float("nan")},
        {"keep_ratio": float("inf")},
        {"keep_ratio": 10**400},
        {"keep_ratio": True},
        {"keep_ratio": "0.5"},
        {"keep": 0},
        {"keep": -1},
        {"keep": 2.0},
        {"keep": True},
    ],
)
def test_other_budgets_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(BudgetError, match="keep"):
        Budget(**arguments)  # type: ignore[arg-type]


def test_the_interval_of_a_ratio_may_be_chosen() -> None:
    assert as_fraction("tau", 0.0, low_open=False) == 0
    assert as_fraction("tau", -1, low=-1, low_open=False) == -1
    with pytest.raises(InvalidValueError, match=r"tau must lie in \[-1, 1\], got 1.5"):
        as_fraction("tau", 1.5, low=-1, low_open=False)
    with pytest.raises(InvalidValueError, match=r"tau must lie in \(0, 1\], got 0.0"):
        as_fraction("tau", 0.0)


@given(blocks, st.integers(0, 120))
def test_a_split_equals_the_reference(blocks: list[tuple[int, int]], budget: int) -> None:
    weights, capacities = [w for w, _ in blocks], [c for _, c in blocks]
    assert split_budget(weights, capacities, budget) == reference_budget_shares(weights, capacities, budget)


@given(blocks, st.integers(0, 120))
def test_a_split_keeps_its_promises(blocks: list[tuple[int, int]], budget: int) -> None:
    weights, capacities = [w for w, _ in blocks], [c for _, c in blocks]
    shares = split_budget(weights, capacities, budget)
    assert sum(shares) == min(budget, sum(capacities))
    assert all(0 <= share <= capacity for share, capacity in zip(shares, capacities))
    usable = [place for place, capacity in enumerate(capacities) if capacity]
    if budget >= len(usable):
        assert all(shares[place] for place in usable)


@pytest.mark.parametrize(
    ("weights", "capacities", "budget", "shares"),
    [
        ([1, 1, 1], [9, 9, 9], 4, [2, 1, 1]),  # a tie goes to the earlier block
        ([5, 3, 2], [9, 9, 9], 5, [3, 1, 1]),  # 2.5, 1.5, 1: the tie of remainders goes to the earlier
        ([8, 1, 1], [2, 9, 9], 8, [2, 3, 3]),  # what a full block cannot take is split again
        ([100, 1, 1], [99, 9, 9], 3, [1, 1, 1]),  # one for each, as the budget has one for each
        ([100, 1, 1], [99, 9, 9], 2, [2, 0, 0]),  # it has not
        ([0, 0], [3, 3], 3, [2, 1]),  # no wishes at all: equal ones
        ([], [], 5, []),
    ],
)
def test_splits_worked_out_by_hand(weights: list[int], capacities: list[int], budget: int, shares: list[int]) -> None:
    assert split_budget(weights, capacities, budget) == shares


@pytest.mark.parametrize(
    ("weights", "capacities", "budget"), [([1], [1, 2], 1), ([-1], [1], 1), ([1], [-1], 1), ([1], [1], -1)]
)
def test_a_split_of_nonsense_is_refused(weights: list[int], capacities: list[int], budget: int) -> None:
    with pytest.raises(InvalidValueError, match="split_budget"):
        split_budget(weights, capacities, budget)
