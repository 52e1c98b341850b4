# SPDX-License-Identifier: Apache-2.0
"""Exact token budgets: how many tokens a ratio keeps, and how a budget is split over blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from tokenprune.errors import BudgetError, InvalidValueError
from tokenprune.messages import shown


def as_fraction(name: str, value: float, *, low: float = 0.0, high: float = 1.0, low_open: bool = True) -> Fraction:
    """Read a ratio as the decimal that was written (``0.1`` is 1/10, not the nearest binary fraction).

    >>> as_fraction("keep_ratio", 0.1)
    Fraction(1, 10)

    Raises:
        InvalidValueError: not a real number, NaN, or outside the interval ``(low, high]`` (``[low, high]``
            with ``low_open=False``).
    """
    interval = f"{'(' if low_open else '['}{low:g}, {high:g}]"
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise InvalidValueError(f"{name} must be a number in {interval}, got {shown(value)}")
    if value > high or value < low or (low_open and value == low):
        raise InvalidValueError(f"{name} must lie in {interval}, got {shown(value)}")
    return Fraction(str(value))


@dataclass(frozen=True)
class Budget:
    """How many tokens may stay: a fraction kept, or an exact count. Exactly one of the two is set.

    >>> Budget(keep_ratio=0.1)(95)
    10

    Args:
        keep_ratio: fraction of the tokens **kept**, in (0, 1].
        keep: exact number of tokens kept, at least 1.

    Raises:
        BudgetError: both or neither given, or a value that is not allowed.
    """

    keep_ratio: float | None = None
    keep: int | None = None

    def __post_init__(self) -> None:
        if (self.keep_ratio is None) == (self.keep is None):
            raise BudgetError(
                f"give exactly one of keep_ratio (fraction kept) and keep (count kept), "
                f"got keep_ratio={shown(self.keep_ratio)}, keep={shown(self.keep)}"
            )
        if self.keep is not None:
            if isinstance(self.keep, bool) or not isinstance(self.keep, int) or self.keep < 1:
                raise BudgetError(f"keep must be an integer of at least 1, got {shown(self.keep)}")
        if self.keep_ratio is not None:
            try:
                as_fraction("keep_ratio", self.keep_ratio)
            except InvalidValueError as error:
                raise BudgetError(str(error)) from None

    def __call__(self, total: int) -> int:
        """The same as :meth:`count`."""
        return self.count(total)

    def count(self, total: int) -> int:
        """Tokens kept of ``total``: ``ceil(keep_ratio * total)`` or ``keep``, at most ``total``, at least 1 of any."""
        if total <= 0:
            return 0
        wanted = self.keep if self.keep is not None else math.ceil(Fraction(str(self.keep_ratio)) * total)
        return max(1, min(wanted, total))


def split_budget(weights: Sequence[int], capacities: Sequence[int], budget: int) -> list[int]:
    """Split ``budget`` over blocks in proportion to ``weights`` by largest remainder, none above its capacity.

    Ties go to the earlier block. Where a full block cannot take its share, the surplus is split again by the
    same rule over the blocks with room. A block with room gets at least 1 if the budget has one for every such
    block. The result sums to ``min(budget, sum(capacities))``; all arithmetic is on integers.

    >>> split_budget([3, 1, 0], [10, 10, 10], 9)
    [6, 2, 1]

    Args:
        weights: wish of each block, >= 0 (all zero: equal wishes).
        capacities: most that each block can take, >= 0.
        budget: tokens to give away, >= 0.
    """
    if len(weights) != len(capacities) or min([budget, *weights, *capacities]) < 0:
        raise InvalidValueError("split_budget needs one weight and one capacity a block, and no negative number")
    budget = min(budget, sum(capacities))
    shares = _fill(weights, capacities, budget)
    open_blocks = [block for block, room in enumerate(capacities) if room > 0]
    if budget >= len(open_blocks) and any(shares[block] == 0 for block in open_blocks):
        floor = [1 if room > 0 else 0 for room in capacities]
        rest = _fill(weights, [room - one for room, one in zip(capacities, floor)], budget - sum(floor))
        shares = [one + more for one, more in zip(floor, rest)]
    return shares


def _fill(weights: Sequence[int], capacities: Sequence[int], budget: int) -> list[int]:
    shares = [0] * len(weights)
    while budget > 0:
        room = [capacity - share for capacity, share in zip(capacities, shares)]
        wishes = [weight if space > 0 else 0 for weight, space in zip(weights, room)]
        if not any(wishes):  # only blocks without a wish are left: they share equally
            wishes = [1 if space > 0 else 0 for space in room]
        total = sum(wishes)
        gifts = [budget * wish // total for wish in wishes]
        by_remainder = sorted(range(len(wishes)), key=lambda block: (-(budget * wishes[block] % total), block))
        for block in by_remainder[: budget - sum(gifts)]:
            gifts[block] += 1
        gifts = [min(gift, space) for gift, space in zip(gifts, room)]  # what a full block cannot take goes round again
        shares = [share + gift for share, gift in zip(shares, gifts)]
        budget -= sum(gifts)
    return shares
