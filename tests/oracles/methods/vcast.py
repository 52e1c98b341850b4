# SPDX-License-Identifier: Apache-2.0
"""V-CAST, slow: frames where the video turns get more tokens; in a frame the unlike and the long tokens stay.

reading: left-over tokens go by largest remainder (the paper), not all to one frame (the authors' code).
reading: a budget below ``min_k`` a frame drops that floor and is split by the weights alone.
reading: a video of one frame is pruned like any other (the authors' wrapper keeps it whole).
reading: the mean frame is divided by max(length, 1e-6).
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from .deciding import Decisions, budget_of
from .plain import NO_SIGNALS, Grid, ReferencePlan, Signals, cosine, frames_of, identity, keeping

EPSILON = 1e-6


def turning(directions: list[np.ndarray]) -> list[float]:
    """1 - cosine of one step between frames and the next; 1 at both ends and where the video stands still."""
    turns = [1.0] * len(directions)
    for t in range(1, len(directions) - 1):
        turns[t] = 1.0 - cosine(directions[t] - directions[t - 1], directions[t + 1] - directions[t])
    return turns


def reference(
    features: np.ndarray,
    grid: Grid,
    *,
    keep_ratio: float | None = None,
    keep: int | None = None,
    temperature: float = 0.7,
    min_k: int = 1,
    signals: Signals = NO_SIGNALS,
) -> ReferencePlan:
    """The tokens of each frame that are unlike its mean and long."""
    frames, height, width = grid
    places = height * width
    x = frames_of(features, grid)
    budget = budget_of(len(features), keep_ratio, keep)
    if budget >= len(features):
        return identity(features)
    decide = Decisions()

    means = [frame.mean(axis=0) for frame in x]
    directions = [mean / max(math.sqrt(float(mean @ mean)), EPSILON) for mean in means]
    powers = [math.exp(turn / temperature) for turn in turning(directions)]
    floor = min(min_k, places) if budget >= frames * min_k else 0
    extra = decide.split(powers, [places - floor] * frames, budget - frames * floor)
    shares = [floor + more for more in extra]

    scores = np.zeros((frames, places))
    for t in range(frames):
        lengths = [math.sqrt(float(token @ token)) for token in x[t]]
        low, high = min(lengths), max(lengths)
        for p in range(places):
            scores[t, p] = 1.0 - cosine(x[t, p], directions[t]) + (lengths[p] - low) / (high - low + EPSILON)
    kept: list[int] = []
    for t in range(frames):
        kept += [t * places + p for p in decide.top(scores[t], shares[t])]
    plan = keeping(kept, features)
    return replace(plan, scores=scores.reshape(-1), shares=shares, margin=decide.margin, tied=decide.tied)
