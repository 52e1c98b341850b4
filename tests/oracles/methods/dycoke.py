# SPDX-License-Identifier: Apache-2.0
"""DyCoke's temporal merging, slow: of four frames the first stays whole, of the others what is unlike goes on.

In a group g, g+1, g+2, g+3: g+1 and g+2 are compared with g, g+3 with g+2 (all as they came in), place by place.

reading: every group is treated alike, the last one too, whole or not (the authors' code leaves one frame of the last
group unpruned, loses an odd last frame and fails up to four frames).
reading: "merging" drops: nothing is averaged.
reading: with a budget ``k`` is not used: the first frames of the groups stay whole, the rest is split evenly over the
others; a budget below the whole frames is split evenly over those, in raster order.
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np

from .deciding import Decisions, budget_of, split
from .plain import NO_SIGNALS, Grid, ReferencePlan, Signals, cosine, frames_of, identity, keeping

COMPARED_WITH = {1: 1, 2: 2, 3: 1}  # place in the group -> how many frames back

WHOLE = 3.0  # above any 1 - cosine


def reference(
    features: np.ndarray,
    grid: Grid,
    *,
    k: float = 0.7,
    keep_ratio: float | None = None,
    keep: int | None = None,
    signals: Signals = NO_SIGNALS,
) -> ReferencePlan:
    """Whole frames, and of each other frame the tokens least like the frame that it is compared with."""
    frames, height, width = grid
    places = height * width
    x = frames_of(features, grid)
    whole = [t % 4 == 0 for t in range(frames)]
    if keep_ratio is None and keep is None:
        shares = [places if whole[t] else math.floor((1 - Fraction(str(k))) * places) for t in range(frames)]
    else:
        budget = budget_of(len(features), keep_ratio, keep)
        if budget >= len(features):
            return identity(features)
        heads = split([1] * frames, [places if first else 0 for first in whole], budget)
        others = split([1] * frames, [0 if first else places for first in whole], budget - sum(heads))
        shares = [a + b for a, b in zip(heads, others, strict=True)]

    decide = Decisions()
    scores = np.full((frames, places), WHOLE)
    kept: list[int] = []
    for t in range(frames):
        if whole[t]:
            kept += range(t * places, t * places + shares[t])
            continue
        earlier = t - COMPARED_WITH[t % 4]
        scores[t] = [1.0 - cosine(x[t, p], x[earlier, p]) for p in range(places)]
        kept += [t * places + p for p in decide.top(scores[t], shares[t])]
    plan = keeping(kept, features)
    return replace(plan, scores=scores.reshape(-1), shares=shares, margin=decide.margin, tied=decide.tied)
