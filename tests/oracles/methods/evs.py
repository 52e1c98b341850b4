# SPDX-License-Identifier: Apache-2.0
"""EVS (arXiv 2510.14624), slow: keep what differs most from the same place one frame earlier; frame 0 first.

reading: the budget is exact, so frame 0 is not a floor: a budget below H*W keeps the first of frame 0 in raster order,
also when there is one frame only.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .deciding import Decisions, budget_of
from .plain import NO_SIGNALS, Grid, ReferencePlan, Signals, cosine, frames_of, identity, keeping

FIRST_FRAME = 255.0  # above any dissimilarity


def dissimilarity(x: np.ndarray) -> np.ndarray:
    """``(T, N, D)`` -> ``(T * N,)`` 1 - cosine to the (unpruned) previous frame."""
    frames, places, _ = x.shape
    scores: list[float] = []
    for t in range(frames):
        for p in range(places):
            scores.append(1.0 - cosine(x[t, p], x[t - 1, p]) if t else FIRST_FRAME)
    return np.array(scores)


def reference(
    features: np.ndarray,
    grid: Grid,
    *,
    keep_ratio: float | None = None,
    keep: int | None = None,
    signals: Signals = NO_SIGNALS,
) -> ReferencePlan:
    """The budget's worth of tokens of largest dissimilarity, ties to the lower index."""
    x = frames_of(features, grid)
    budget = budget_of(len(features), keep_ratio, keep)
    if budget >= len(features):
        return identity(features)
    decide = Decisions()
    scores = dissimilarity(x)
    first = range(min(budget, x.shape[1]))
    later = decide.top(scores, budget - len(first), among=range(x.shape[1], len(scores)))
    plan = keeping([*first, *later], features)
    return replace(plan, scores=scores, margin=decide.margin, tied=decide.tied)
