# SPDX-License-Identifier: Apache-2.0
"""How the slow references decide: exact budgets, largest values, thresholds; ties to the lower index.

Two float64 values that differ by less than ``RESOLUTION`` of their scale count as equal, so that a tie of real numbers
is one here as well. How near to a tie a reference came is kept in ``margin``: a computation in fp32 can be asked for
the same plan only where it is not tiny (or the clip is exact).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

Numbers = Sequence[float] | np.ndarray

RESOLUTION = 1e-10


def resolved(value: float, scale: float) -> float:
    """The value over ``scale``, to the resolution; infinity stays."""
    return round(value / scale, 10) if math.isfinite(value) else value


def largest(values: Numbers) -> float:
    """The largest absolute value, as a scale: 1 where all are zero."""
    return float(np.max(np.abs(values))) or 1.0


@dataclass
class Decisions:
    """Compares numbers under the tie rule and remembers how close the closest decision was."""

    margin: float = math.inf
    tied: bool = False

    def note(self, gap: float) -> None:
        """Remember that a decision hung on ``gap``."""
        if gap <= RESOLUTION:
            self.tied = True
        else:
            self.margin = min(self.margin, gap)

    def top(self, values: Numbers, count: int, among: Iterable[int] | None = None, scale: float = 1.0) -> list[int]:
        """The ``count`` indices of largest value (of those in ``among``), largest first.

        Rounding errors of the values are relative to ``scale``: 1 for cosines and what is made of them.
        """
        candidates = sorted(range(len(values)) if among is None else among)
        key = {i: resolved(float(values[i]), scale) for i in candidates}
        ranked = sorted(candidates, key=lambda i: (-key[i], i))
        if 0 < count < len(ranked):
            last, first_out = key[ranked[count - 1]], key[ranked[count]]
            self.note(0.0 if last == first_out else last - first_out)
        return ranked[:count]

    def best(self, values: Numbers, among: Iterable[int] | None = None, scale: float = 1.0) -> int:
        """The index of the largest value."""
        return self.top(values, 1, among, scale)[0]

    def above(self, value: float, threshold: float) -> bool:
        """Whether ``value`` is strictly above ``threshold``."""
        self.note(abs(value - threshold))
        return value - threshold > RESOLUTION

    def split(
        self, weights: Sequence[float], capacities: Sequence[int], budget: int, *, at_least_one: bool = False
    ) -> list[int]:
        """:func:`split` of weights that are real numbers."""
        total = math.fsum(weights)
        exact = [Fraction(str(round(weight / total, 12))) if total > 0 else Fraction(0) for weight in weights]
        return split(exact, capacities, budget, at_least_one=at_least_one, note=self.note)


def budget_of(total: int, keep_ratio: float | None, keep: int | None) -> int:
    """How many of ``total`` tokens stay: the ratio is read as the decimal that was written, rounded up."""
    if (keep_ratio is None) == (keep is None):
        raise ValueError("give one of keep_ratio and keep")
    wanted = keep if keep_ratio is None else math.ceil(Fraction(str(keep_ratio)) * total)
    return max(1, min(wanted or 0, total))


def split(
    weights: Sequence[int] | Sequence[Fraction],
    capacities: Sequence[int],
    budget: int,
    *,
    at_least_one: bool = False,
    note: Callable[[float], None] | None = None,
) -> list[int]:
    """Largest remainder, ties to the earlier block; what a full block cannot take is split again over the others.

    With ``at_least_one`` no block goes without while the budget has one for each: then all get one first. ``note`` is
    told by how much (of the budget) the last remainder that got one more surpassed the next.
    """
    shares = [0] * len(capacities)
    usable = [i for i, capacity in enumerate(capacities) if capacity > 0]
    left = min(budget, sum(capacities))
    while left > 0:
        room = [i for i in usable if shares[i] < capacities[i]]
        wish = {i: Fraction(weights[i]) for i in room}
        if sum(wish.values()) == 0:
            wish = dict.fromkeys(room, Fraction(1))
        exact = {i: left * wish[i] / sum(wish.values()) for i in room}
        offer = {i: math.floor(exact[i]) for i in room}
        spare = left - sum(offer.values())
        by_remainder = sorted(room, key=lambda i: (offer[i] - exact[i], i))
        if note and 0 < spare < len(room):
            last, first_out = by_remainder[spare - 1], by_remainder[spare]
            note(float(exact[last] - offer[last] - exact[first_out] + offer[first_out]) / budget)
        for i in by_remainder[:spare]:
            offer[i] += 1
        for i in room:
            taken = min(offer[i], capacities[i] - shares[i])
            shares[i] += taken
            left -= taken
    if at_least_one and budget >= len(usable) and any(shares[i] == 0 for i in usable):
        rest = [max(0, capacity - 1) for capacity in capacities]
        more = split(weights, rest, budget - len(usable), note=note)
        shares = [more[i] + (1 if i in usable else 0) for i in range(len(capacities))]
    return shares
