# SPDX-License-Identifier: Apache-2.0
"""TTF, slow: one anchor frame stays whole; elsewhere drop what resembles the anchor's 3x3 neighbourhood.

reading: a dropped token is dropped (assign -1): the paper identifies it with its match but averages nothing.
reading: with a budget the order is the anchor frame (in raster order), then all others by falling difference to the
best match; below H*W tokens the anchor frame is cut in raster order.
reading: frames are compared by the means of their raw features.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .deciding import Decisions, budget_of
from .plain import NO_SIGNALS, Grid, ReferencePlan, Signals, cosine, frames_of, identity, keeping

ANCHOR = 3.0  # above any 1 - cosine


def reference(
    features: np.ndarray,
    grid: Grid,
    *,
    threshold: float = 0.7,
    keep_ratio: float | None = None,
    keep: int | None = None,
    signals: Signals = NO_SIGNALS,
) -> ReferencePlan:
    """The anchor frame, and the tokens of the others that have no match in it."""
    frames, height, width = grid
    x = frames_of(features, grid)
    decide = Decisions()
    mean = x.reshape(len(features), -1).mean(axis=0)
    anchor = decide.best([cosine(frame.mean(axis=0), mean) for frame in x])

    match = np.zeros((frames, height, width))  # the best cosine in the neighbourhood
    grid_of = x.reshape(frames, height, width, -1)
    for t in range(frames):
        for h in range(height):
            for w in range(width):
                match[t, h, w] = max(
                    cosine(grid_of[t, h, w], grid_of[anchor, i, j])
                    for i in range(max(0, h - 1), min(height, h + 2))
                    for j in range(max(0, w - 1), min(width, w + 2))
                )
    scores = 1.0 - match
    scores[anchor] = ANCHOR
    flat = scores.reshape(-1)

    places = height * width
    whole = range(anchor * places, (anchor + 1) * places)
    others = [i for i in range(len(flat)) if i not in whole]
    if keep_ratio is None and keep is None:
        kept = [*whole, *(i for i in others if not decide.above(1.0 - flat[i], threshold))]
    else:
        budget = budget_of(len(flat), keep_ratio, keep)
        if budget >= len(flat):
            return identity(features)
        kept = [*whole[:budget], *decide.top(flat, max(0, budget - places), among=others)]
    plan = keeping(kept, features)
    return replace(plan, scores=flat, margin=decide.margin, tied=decide.tied)
