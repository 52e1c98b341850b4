# SPDX-License-Identifier: Apache-2.0
"""Schedules over layers: ratios are of the tokens that entered the first stage, and so are counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .deciding import budget_of
from .plain import ReferencePlan

Stage = Callable[[int, list[int], int], ReferencePlan]
"""``(stage, tokens that are there, how many stay)`` -> a plan over the tokens that are there."""


@dataclass(frozen=True)
class Staged:
    """What a schedule of prunings leaves.

    Args:
        kept: after each stage the tokens that are left, by their index among those that entered the first.
        plans: the plan of each stage over the tokens that it met.
    """

    kept: list[list[int]]
    plans: list[ReferencePlan]


def counts(entered: int, ratios: Sequence[float]) -> list[int]:
    """How many tokens each stage leaves: its ratio of those that entered, rounded up, never more than there are."""
    result: list[int] = []
    for ratio in ratios:
        result.append(min(budget_of(entered, ratio, None), result[-1] if result else entered))
    return result


def staged(entered: int, ratios: Sequence[float], decide: Stage) -> Staged:
    """Stage by stage, each on what the stage before it left."""
    there = list(range(entered))
    kept: list[list[int]] = []
    plans: list[ReferencePlan] = []
    for number, count in enumerate(counts(entered, ratios)):
        plan = decide(number, there, count)
        there = [there[place] for place in plan.anchors]
        kept.append(there)
        plans.append(plan)
    return Staged(kept, plans)
