# SPDX-License-Identifier: Apache-2.0
"""Cover, slow: Euclidean farthest points, each the mean of the tokens nearest to it. One block, no projection.

reading: ``spread`` is the share of picks that are evenly spread, rounded up (0.5 of 5 picks: 2 farthest, 3 spread).
reading: spread picks come after the farthest ones, the lowest of frac(i * 0.618) among tokens not yet picked, with
0.618 as the decimal it is, so that i and i + 500 tie.
reading: "the largest of all" as the first pick's score is infinity here; only its place in the order has a meaning.
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np

from .deciding import Decisions, budget_of, largest
from .plain import NO_SIGNALS, Grid, ReferencePlan, Signals, frames_of, identity, merging, squared_distance


def reference(
    features: np.ndarray,
    grid: Grid,
    *,
    keep_ratio: float | None = None,
    keep: int | None = None,
    spread: float = 0.0,
    signals: Signals = NO_SIGNALS,
) -> ReferencePlan:
    """The K tokens of farthest-point order; everyone goes to the nearest."""
    x = frames_of(features, grid).reshape(len(features), -1)
    n = len(x)
    budget = budget_of(n, keep_ratio, keep)
    if budget >= n:
        return identity(features)
    decide = Decisions()
    scale = largest(x) ** 2 * x.shape[1]
    mean = x.mean(axis=0)
    evenly = math.ceil(Fraction(str(spread)) * budget)

    order: list[int] = []
    scores = np.full(n, math.inf)
    distance = [math.inf] * n  # to the nearest of the picked
    while len(order) < budget:
        left = [i for i in range(n) if i not in order]
        if len(order) < budget - evenly:
            away = distance if order else [squared_distance(row, mean) for row in x]
            pick = decide.best(away, among=left, scale=scale)
        else:
            pick = min(left, key=lambda i: (Fraction(618 * i, 1000) % 1, i))
        scores[pick] = distance[pick]
        order.append(pick)
        distance = [min(d, squared_distance(row, x[pick])) for d, row in zip(distance, x, strict=True)]

    anchors = sorted(order)
    home: list[int | None] = []
    for i in range(n):
        if i in order:
            home.append(i)
        else:
            home.append(anchors[decide.best([-squared_distance(x[i], x[a]) for a in anchors], scale=scale)])
            scores[i] = distance[i]
    plan = merging(home, features)
    return replace(plan, order=order, scores=scores, margin=decide.margin, tied=decide.tied)
