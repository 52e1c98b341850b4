# SPDX-License-Identifier: Apache-2.0
"""The exact test of two ways to answer the same questions, against tossing all coins."""

from __future__ import annotations

import itertools

import pytest

from tokenprune.bench.paired import Paired


def tossed(wins: int, losses: int) -> float:
    """Share of all sequences of coin tosses that are at least as uneven."""
    total = wins + losses
    uneven = [abs(2 * sum(coins) - total) >= abs(wins - losses) for coins in itertools.product((0, 1), repeat=total)]
    return sum(uneven) / len(uneven)


@pytest.mark.parametrize("total", range(9))
def test_p_is_the_share_of_tosses_as_uneven(total: int) -> None:
    for wins in range(total + 1):
        assert Paired(wins, total - wins).p == pytest.approx(tossed(wins, total - wins), abs=1e-12)


def test_many_questions_neither_overflow_nor_vanish() -> None:
    assert 0 < Paired(1000, 3).p < 1e-200
    assert Paired(5000, 5000).p == 1.0


def test_only_questions_that_one_gets_right_count() -> None:
    here, there = [True, True, False, False, True], [True, False, True, False, False]
    assert Paired.of(here, there) == Paired(wins=2, losses=1)
    assert Paired.of(there, here) == Paired(wins=1, losses=2)
    with pytest.raises(ValueError, match="zip"):
        Paired.of(here, there[:-1])
