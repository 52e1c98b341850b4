# SPDX-License-Identifier: Apache-2.0
"""DivPrune, slow: again and again the token whose cosine distance to the nearest kept one is largest.

reading: over the whole video; the first token is the one farthest from its nearest other token; picked tokens are
never picked again; a zero token has cosine 0 to everything, itself included.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from .deciding import Decisions, budget_of
from .plain import NO_SIGNALS, Grid, ReferencePlan, Signals, cosines, frames_of, identity, keeping


def reference(
    features: np.ndarray,
    grid: Grid,
    *,
    keep_ratio: float | None = None,
    keep: int | None = None,
    signals: Signals = NO_SIGNALS,
) -> ReferencePlan:
    """The max-min greedy set; ``scores`` is the distance at the time of picking (the others': to the kept set)."""
    x = frames_of(features, grid).reshape(len(features), -1)
    n = len(x)
    budget = budget_of(n, keep_ratio, keep)
    if budget >= n:
        return identity(features)
    decide = Decisions()
    distance = 1.0 - cosines(x)

    alone = [min(distance[i, j] for j in range(n) if j != i) for i in range(n)]
    order = [decide.best(alone)]
    scores = distance[:, order[0]].copy()  # to the nearest of the kept
    scores[order[0]] = math.inf
    while len(order) < budget:
        pick = decide.best(scores, among=[i for i in range(n) if i not in order])
        order.append(pick)
        for i in range(n):
            if i not in order:
                scores[i] = min(scores[i], distance[i, pick])
    plan = keeping(order, features)
    return replace(plan, order=order, scores=scores, margin=decide.margin, tied=decide.tied)
