# SPDX-License-Identifier: Apache-2.0
"""FrameFusion, slow: runs of alike tokens at one place over time become one; attention cuts what is still too much.

A link joins a token to the one before it at its place, among those that are still there; links of a cosine of at
least the threshold merge, and a run of them is one token at its first one's place.

reading: the budget is exact and takes the place of the authors' cost over 28 layers: the links of highest cosine merge
(ties to the lower index), no more of them than the budget asks for.
reading: a merged token is the plain mean of the tokens it is made of now, whatever they were made of before.
reading: what is left to cut goes by attention, mean over heads and the rows given; asked about both at one layer, a
merged token has the mean attention of its tokens, as one column of their mean would have, nearly.
reading: in the form of features alone the threshold is not used; a budget of fewer than one token for each place
keeps the places that change most (the lowest cosine of a link), ties to the lower index.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from .deciding import Decisions, budget_of, largest
from .plain import Grid, ReferencePlan, cosine, identity, keeping, merging
from .schedule import Staged

THRESHOLD = 0.6
FEW = Fraction("0.1")
"""Once a stage merges less than this share of the tokens it met, no other stage merges."""

Place = Hashable
"""Where in its frames a token stands, and in which video, where there are several."""

StatesAt = Callable[[int, list[int]], np.ndarray]
"""``(stage, tokens that are there)`` -> ``(n, D)`` their hidden states."""

RowsAt = Callable[[int, list[int]], np.ndarray]
"""``(stage, tokens that are there)`` -> ``(heads, R, n)`` attention to them."""


@dataclass(frozen=True)
class Links:
    """For each token the one before it at its place, None for the first there; and their cosine, -2 for none."""

    before: list[int | None]
    alike: list[float]


def places_of(grid: Grid) -> list[Place]:
    """The place of each token of a whole grid."""
    return [*range(grid[1] * grid[2])] * grid[0]


def links_of(features: np.ndarray, where: Sequence[Place]) -> Links:
    """``where``: the place of each token, in the order of time."""
    states = features.astype(np.float64)
    latest: dict[Place, int] = {}
    before: list[int | None] = []
    alike: list[float] = []
    for i, place in enumerate(where):
        earlier = latest.get(place)
        before.append(earlier)
        alike.append(-2.0 if earlier is None else cosine(states[i], states[earlier]))
        latest[place] = i
    return Links(before, alike)


def merge_stage(
    features: np.ndarray,
    where: Sequence[Place],
    *,
    fewest: int,
    threshold: float | None = THRESHOLD,
    decide: Decisions | None = None,
) -> ReferencePlan:
    """Merges the strongest links down to ``fewest`` tokens, without a threshold whatever their cosine."""
    decide = decide or Decisions()
    links = links_of(features, where)
    usable = [i for i, earlier in enumerate(links.before) if earlier is not None]
    if threshold is not None:
        usable = [i for i in usable if not decide.above(threshold, links.alike[i])]
    merged = set(decide.top(links.alike, max(0, len(features) - fewest), among=usable))
    home: list[int | None] = []
    for i, earlier in enumerate(links.before):
        home.append(home[earlier] if i in merged and earlier is not None else i)
    return replace(merging(home, features), margin=decide.margin, tied=decide.tied)


def prune_stage(features: np.ndarray, rows: np.ndarray, *, keep: int) -> ReferencePlan:
    """Keeps what ``(heads, R, N)`` attention is on; the authors read the last row, on Qwen2-VL the last four."""
    if keep >= len(features):
        return identity(features)
    decide = Decisions()
    scores = np.array([rows[:, :, i].mean() for i in range(len(features))])
    kept = decide.top(scores, keep, scale=largest(scores))
    return replace(keeping(kept, features), scores=scores, margin=decide.margin, tied=decide.tied)


def reference(
    features: np.ndarray,
    where: Sequence[Place],
    rows: np.ndarray | None = None,
    *,
    keep_ratio: float | None = None,
    keep: int | None = None,
    threshold: float = THRESHOLD,
) -> ReferencePlan:
    """Merges, then cuts to the budget, at one layer; without ``rows`` the form of features alone."""
    n = len(features)
    budget = budget_of(n, keep_ratio, keep)
    if budget >= n:
        return identity(features)
    decide = Decisions()
    limit = None if rows is None else threshold
    plan = merge_stage(features, where, fewest=budget, threshold=limit, decide=decide)
    if len(plan.anchors) > budget:
        groups = [[i for i in range(n) if plan.assign[i] == place] for place in range(len(plan.anchors))]
        if rows is None:
            alike = links_of(features, where).alike
            scores = [-min([alike[i] for i in group if alike[i] > -2], default=1.0) for group in groups]
        else:
            attention = [float(rows[:, :, i].mean()) for i in range(n)]
            scores = [sum(attention[i] for i in group) / len(group) for group in groups]
        kept = decide.top(scores, budget, scale=largest(scores))
        plan = merging([plan.anchors[place] if place in kept else None for place in plan.assign], features)
    return replace(plan, margin=decide.margin, tied=decide.tied)


def schedule(
    where: Sequence[Place],
    states_at: StatesAt,
    rows_at: RowsAt,
    stages: int,
    *,
    keep: int,
    threshold: float = THRESHOLD,
) -> Staged:
    """Merges stage by stage while that is worth it, and in the stage after, or the last, cuts to ``keep`` tokens."""
    there = list(range(len(where)))
    kept: list[list[int]] = []
    plans: list[ReferencePlan] = []
    merges = True
    for stage in range(stages):
        if len(there) <= keep:
            break
        states = states_at(stage, there)
        if merges and stage < stages - 1:
            plan = merge_stage(states, [where[i] for i in there], fewest=keep, threshold=threshold)
            merges = Fraction(len(there) - len(plan.anchors), len(there)) >= FEW
        else:
            plan = prune_stage(states, rows_at(stage, there), keep=keep)
        there = [there[place] for place in plan.anchors]
        kept.append(there)
        plans.append(plan)
    return Staged(kept, plans)
