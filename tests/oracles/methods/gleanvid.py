# SPDX-License-Identifier: Apache-2.0
"""GleanVID (arXiv 2609.37042, section 3 and appendix B), slow: budgets by temporal novelty, choice by new directions.

reading: 2x2 cells tile a frame; at odd edges they are smaller.
reading: budgets are split by largest remainder, capped at H*W, a frame may get none.
reading: what min-max finds constant is 0 everywhere.
reading: where the paper's test of new directions is relative only, there is an absolute floor too: a residual of at
most 1e-3 of the token's own length is nothing, neither as novelty nor as a direction; directions that fall to the
floor do not take part in making the others orthogonal.
reading: without a spread of features there is no context direction to remove; without a history there is no residual
to take away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .deciding import Decisions, budget_of
from .plain import NO_SIGNALS, Grid, ReferencePlan, Signals, cosine, frames_of, identity, keeping, min_max

EPSILON = 1e-4
FLOOR = 1e-3
SHARPNESS = 4.0


def cells_of(height: int, width: int) -> list[list[int]]:
    """For each place of a frame the places of its 2x2 cell."""
    cells: list[list[int]] = []
    for h in range(height):
        for w in range(width):
            rows = range(h - h % 2, min(h - h % 2 + 2, height))
            columns = range(w - w % 2, min(w - w % 2 + 2, width))
            cells.append([i * width + j for i in rows for j in columns])
    return cells


def without_context(x: np.ndarray, decide: Decisions) -> np.ndarray:
    """``(n, D)`` with the strongest direction of the centred rows taken out; the mean stays."""
    mean = x.mean(axis=0)
    centred = x - mean
    _, values, directions = np.linalg.svd(centred, full_matrices=False)
    if values[0] <= 1e-12 * math.sqrt(float((x**2).sum())):
        return x
    decide.note(float((values[0] - values[1]) / values[0]) if len(values) > 1 else 1.0)
    return np.array([row - (row @ directions[0]) * directions[0] for row in centred]) + mean


def novelty(z: np.ndarray) -> list[float]:
    """``(T, N, D)`` pooled features -> per frame the length that earlier frames at the same place do not explain."""
    frames, places, _ = z.shape
    totals: list[float] = []
    for t in range(frames):
        residuals: list[float] = []
        for p in range(places):
            history, now = z[:t, p], z[t, p]
            gram = history @ history.T
            explained = 0.0
            if t and np.trace(gram) > 0:
                ridge = EPSILON * float(np.trace(gram)) / t * np.eye(t)
                b = history @ now
                explained = float(b @ np.linalg.solve(gram + ridge, b))
            residuals.append(math.sqrt(max(float(now @ now) - explained, 0.0)))
        totals.append(math.fsum(residuals))
    return totals


def gini(values: Sequence[float]) -> float:
    """The Gini coefficient; 0 where all are zero."""
    total, count = math.fsum(values), len(values)
    if total == 0:
        return 0.0
    ranked = math.fsum(place * value for place, value in enumerate(sorted(values), start=1))
    return 2 * ranked / (count * total) - (count + 1) / count


def new_directions(chosen: np.ndarray, basis: list[np.ndarray], decide: Decisions) -> list[np.ndarray]:
    """Orthonormal directions of the chosen rows that the basis lacks, taken row by row."""
    found: list[tuple[float, np.ndarray]] = []
    for row in chosen:
        rest = row.copy()
        for _ in range(2):  # twice is enough against rounding
            for direction in [*basis, *(direction for _, direction in found)]:
                rest = rest - (rest @ direction) * direction
        length, whole = math.sqrt(float(rest @ rest)), math.sqrt(float(row @ row))
        if whole > 0 and decide.above(length / whole, FLOOR):
            found.append((length, rest / length))
    longest = max((length for length, _ in found), default=1.0)
    return [direction for length, direction in found if decide.above(length / longest, EPSILON)]


def reference(
    features: np.ndarray,
    grid: Grid,
    *,
    keep_ratio: float | None = None,
    keep: int | None = None,
    alpha_min: float = 0.2,
    alpha_max: float = 0.6,
    signals: Signals = NO_SIGNALS,
) -> ReferencePlan:
    """Frame by frame the tokens that stand out from their surroundings and add new directions."""
    frames, height, width = grid
    places = height * width
    x = frames_of(features, grid)
    budget = budget_of(len(features), keep_ratio, keep)
    if budget >= len(features):
        return identity(features)
    decide = Decisions()
    cells = cells_of(height, width)
    bare = without_context(x.reshape(len(features), -1), decide).reshape(x.shape)

    new = novelty(np.array([[frame[cell].mean(axis=0) for cell in cells] for frame in bare]))
    alpha = alpha_max - (alpha_max - alpha_min) * gini(new)
    total = math.fsum(new)
    shares = decide.split(
        [alpha / frames + (1 - alpha) * (value / total if total > 0 else 1 / frames) for value in new],
        [places] * frames,
        budget,
    )

    basis: list[np.ndarray] = []
    kept: list[int] = []
    scores = np.zeros((frames, places))
    for t in range(frames):
        local, unseen = [0.0] * places, [0.0] * places
        for p in range(places):
            token = bare[t, p]
            contrast = cosine(x[t, p], x[t, cells[p]].mean(axis=0)) - cosine(x[t, p], x[t].mean(axis=0))
            local[p] = math.log1p(math.exp(SHARPNESS * contrast)) / SHARPNESS
            length = math.sqrt(float(token @ token))
            energy = float(token @ token) - math.fsum(float(direction @ token) ** 2 for direction in basis)
            if length > 0 and decide.above(math.sqrt(max(energy, 0.0)) / length, FLOOR):
                unseen[p] = math.sqrt(energy)
        scores[t] = min_max(local) + min_max(unseen)
        chosen = sorted(decide.top(scores[t], shares[t]))
        kept += [t * places + p for p in chosen]
        basis += new_directions(bare[t, chosen], basis, decide)
    plan = keeping(kept, features)
    return replace(plan, scores=scores.reshape(-1), shares=shares, margin=decide.margin, tied=decide.tied)
