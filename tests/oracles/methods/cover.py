# SPDX-License-Identifier: Apache-2.0
"""Cover, slow: Euclidean farthest points, each the mean of the tokens nearest to it. One block, no projection.

reading: ``spread`` is the share of picks that are evenly spread, rounded up (0.5 of 5 picks: 2 farthest, 3 spread).
reading: spread picks come after the farthest ones, the lowest of frac(i * 0.618) among tokens not yet picked, with
0.618 as the decimal it is, so that i and i + 500 tie.
reading: an outlier is far from the mean (more than the root of the mean square) in a direction of which the others,
about their own mean, leave more than 0.4 to it, and more than twice what they leave to the median token; four of them
may be picked, then a share of the picks so far, rounded up, while anything else has a distance.
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
    outliers: float = 0.1,
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

    alone = outlying(x, decide) if Fraction(str(outliers)) < 1 else []
    order: list[int] = []
    scores = np.full(n, math.inf)
    distance = [math.inf] * n  # to the nearest of the picked
    while len(order) < budget:
        left = [i for i in range(n) if i not in order]
        if len(order) < budget - evenly:
            away = distance if order else [squared_distance(row, mean) for row in x]
            others = [i for i in left if i not in alone and away[i] > 1e-9 * scale]
            allowed = max(4, math.ceil(Fraction(str(outliers)) * (len(order) + 1)))
            waits = others and sum(i in alone for i in order) >= allowed
            pick = decide.best(away, among=others if waits else left, scale=scale)
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


def outlying(x: np.ndarray, decide: Decisions) -> list[int]:
    """The tokens whose direction no other shares, told for one token after the other."""
    n, dim = x.shape
    squares = [squared_distance(row, x.mean(axis=0)) for row in x]
    energy = math.fsum(squares)
    if energy == 0 or n < 2:
        return []
    left = [math.inf] * n
    for i in range(n):
        others = np.delete(x, i, axis=0)
        middle = others.mean(axis=0)
        away = x[i] - middle
        length = math.sqrt(float(away @ away))
        if length > 0:
            about = others - middle
            shared = about.T @ about + 1e-4 * energy * np.eye(dim)
            left[i] = 1e-4 * energy * float(away @ np.linalg.solve(shared, away)) / length**2
    least = max(0.4, 2 * sorted(left)[(n - 1) // 2])
    far = [i for i in range(n) if left[i] < math.inf and decide.above(squares[i] * n / energy, 1.0)]
    return [i for i in far if decide.above(left[i], least)]
