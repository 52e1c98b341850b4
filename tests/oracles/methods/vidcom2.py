# SPDX-License-Identifier: Apache-2.0
"""VidCom2, slow: unusual frames get more tokens, and in a frame the most unusual tokens stay.

reading: the budget is split by largest remainder over the frames' shares 1 + sigma - mean(sigma), capped at H*W; with
one token for each frame in the budget no frame goes without. (For shares below H*W this is r_t * H*W of the paper.)
reading: similarity is the authors' sum of Gaussians, not the cosine of the paper's text.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from .deciding import Decisions, budget_of, largest
from .plain import NO_SIGNALS, Grid, ReferencePlan, Signals, frames_of, identity, keeping, squared_distance, unit

WIDTHS = (1 / 8, 1 / 4, 1 / 2, 1, 2)


def likeness(a: np.ndarray, b: np.ndarray) -> float:
    """A sum of five Gaussians of the distance."""
    return sum(math.exp(-squared_distance(a, b) / (2 * width)) for width in WIDTHS)


def reference(
    features: np.ndarray,
    grid: Grid,
    *,
    keep_ratio: float | None = None,
    keep: int | None = None,
    temperature: float = 0.01,
    signals: Signals = NO_SIGNALS,
) -> ReferencePlan:
    """The tokens of each frame least like the video's and the frame's mean."""
    frames, height, width = grid
    places = height * width
    raw = frames_of(features, grid)
    budget = budget_of(len(features), keep_ratio, keep)
    if budget >= len(features):
        return identity(features)
    decide = Decisions()

    variance = raw.reshape(len(features), -1).var(axis=0)
    channels = sorted(decide.top(-variance, max(1, raw.shape[-1] // 2), scale=largest(variance)))
    y = np.array([[unit(token[channels]) for token in frame] for frame in raw])
    video_mean = y.reshape(len(features), -1).mean(axis=0)
    to_video = np.array([[likeness(token, video_mean) for token in frame] for frame in y])
    to_frame = np.array([[likeness(token, frame.mean(axis=0)) for token in frame] for frame in y])

    unusual = [-float(np.mean(row)) for row in to_video]
    powers = [math.exp((u - max(unusual)) / temperature) for u in unusual]
    sigma = [power / math.fsum(powers) for power in powers]
    weights = [1 + s - math.fsum(sigma) / frames for s in sigma]
    shares = decide.split(weights, [places] * frames, budget, at_least_one=True)

    scores = -(to_video + to_frame)
    kept: list[int] = []
    for t in range(frames):
        kept += [t * places + p for p in decide.top(scores[t], shares[t])]
    plan = keeping(kept, features)
    return replace(plan, scores=scores.reshape(-1), shares=shares, margin=decide.margin, tied=decide.tied)
