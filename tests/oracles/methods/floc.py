# SPDX-License-Identifier: Apache-2.0
"""FLoC, slow: in chunks of frames, the tokens that cover all others best (greedy facility location on cosines).

reading: the budget is split over the chunks by their sizes, largest remainder, none without while there is one each.
reading: the first pick has the largest sum of cosines, negative ones counted; a later one the largest gain.
Two tokens that improve only each other tie exactly, which fp32 cannot see: compare :func:`objective`, not sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .deciding import Decisions, budget_of, split
from .plain import NO_SIGNALS, Grid, ReferencePlan, Signals, cosines, frames_of, identity, keeping


def objective(features: np.ndarray, kept: Sequence[int]) -> float:
    """What a chunk's choice is to maximise: the sum over all its tokens of the cosine to the nearest kept one."""
    table = cosines(features.astype(np.float64))
    return float(sum(max(table[v, u] for u in kept) for v in range(len(table))))


def facility_location(x: np.ndarray, budget: int, decide: Decisions) -> list[int]:
    """Greedy: ``budget`` tokens of ``x`` (n, D), in the order in which they were picked."""
    table = cosines(x)
    order: list[int] = []
    covered: np.ndarray | None = None
    while len(order) < budget:
        gains = [
            float(table[:, u].sum()) if covered is None else float(np.maximum(table[:, u] - covered, 0).sum())
            for u in range(len(x))
        ]
        pick = decide.best(gains, among=[u for u in range(len(x)) if u not in order], scale=len(x))
        order.append(pick)
        covered = table[:, pick] if covered is None else np.maximum(covered, table[:, pick])
    return order


def reference(
    features: np.ndarray,
    grid: Grid,
    *,
    keep_ratio: float | None = None,
    keep: int | None = None,
    chunk: int = 32,
    signals: Signals = NO_SIGNALS,
) -> ReferencePlan:
    """The facility-location greedy set of every ``chunk`` frames."""
    frames, height, width = grid
    places = height * width
    x = frames_of(features, grid)
    budget = budget_of(len(features), keep_ratio, keep)
    if budget >= len(features):
        return identity(features)
    decide = Decisions()
    starts = list(range(0, frames, chunk))
    sizes = [places * (min(start + chunk, frames) - start) for start in starts]
    shares = split(sizes, sizes, budget, at_least_one=True)
    order: list[int] = []
    for start, share in zip(starts, shares, strict=True):
        rows = x[start : start + chunk].reshape(-1, x.shape[-1])
        order += [start * places + i for i in facility_location(rows, share, decide)]
    plan = keeping(order, features)
    return replace(plan, order=order, shares=shares, margin=decide.margin, tied=decide.tied)
