# SPDX-License-Identifier: Apache-2.0
"""CDPruner, slow: greedy MAP of a determinantal point process whose kernel is relevance times cosine.

reading: one kernel over the whole video (the authors' images are one kernel each).
reading: equal relevances all count as 1 (the authors divide 0 by 0).
reading: the greedy stops where the largest residual is at most 1e-6 of the kernel's largest diagonal entry; the rest of
the budget is filled by relevance, ties to the lower index.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from .deciding import Decisions, budget_of
from .plain import NO_SIGNALS, Grid, ReferencePlan, Signals, cosine, cosines, frames_of, identity, keeping, min_max

EPSILON = 1e-6  # in the numerator only, so that the largest relevance is a little above 1
EXHAUSTED = 1e-6


def scaled_relevance(raw: np.ndarray) -> np.ndarray:
    """Relevance on (0, 1], a little above."""
    values = np.asarray(raw, dtype=np.float64)
    span = float(values.max() - values.min())
    if span <= 1e-9 * float(np.abs(values).max()):
        return np.ones_like(values)
    return min_max(values) + EPSILON / span


def determinants(kernel: np.ndarray, budget: int, decide: Decisions) -> list[int]:
    """Greedily the rows whose minor of the kernel has the largest determinant, until it would be (nearly) zero."""
    n = len(kernel)
    left = [float(kernel[i, i]) for i in range(n)]  # what each row would multiply the determinant by
    rows: list[list[float]] = [[] for _ in range(n)]  # of the Cholesky factor
    scale = max(left) or 1.0
    limit = EXHAUSTED * max(left)
    order: list[int] = []
    while len(order) < budget:
        among = [i for i in range(n) if i not in order]
        if max(left[i] for i in among) <= limit:
            break
        pick = decide.best(left, among=among, scale=scale)
        order.append(pick)
        root = math.sqrt(left[pick])
        entry = [(kernel[pick, i] - math.fsum(a * b for a, b in zip(rows[pick], rows[i]))) / root for i in range(n)]
        for i in range(n):
            rows[i].append(entry[i])
            left[i] -= entry[i] ** 2
    return order


def reference(
    features: np.ndarray,
    grid: Grid,
    *,
    keep_ratio: float | None = None,
    keep: int | None = None,
    relevance: str = "given",
    signals: Signals = NO_SIGNALS,
) -> ReferencePlan:
    """``relevance="given"``: of the signal; ``"text"``: minus the mean cosine to the rows of ``text``."""
    x = frames_of(features, grid).reshape(len(features), -1)
    budget = budget_of(len(x), keep_ratio, keep)
    if budget >= len(x):
        return identity(features)
    decide = Decisions()
    if relevance == "given":
        raw = np.asarray(signals["relevance"], dtype=np.float64)
    elif relevance == "text":
        text = signals["text"].astype(np.float64)
        raw = np.array([-np.mean([cosine(token, row) for row in text]) for token in x])
    else:
        raise ValueError(f"relevance must be 'given' or 'text', got {relevance!r}")
    weight = scaled_relevance(raw)
    order = determinants(weight[:, None] * cosines(x) * weight[None, :], budget, decide)
    order += decide.top(weight, budget - len(order), among=[i for i in range(len(x)) if i not in order])
    plan = keeping(order, features)
    return replace(plan, order=order, scores=weight, margin=decide.margin, tied=decide.tied)
