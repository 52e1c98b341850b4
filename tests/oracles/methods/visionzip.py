# SPDX-License-Identifier: Apache-2.0
"""VisionZip, slow: of each frame the most attended tokens, and evenly spaced others that take in what is left.

reading: the budget is split evenly over the frames; of a frame's share K, round(K * dominant / (dominant + contextual))
(half to even) are dominant, at most K - 1 where K > 1.
reading: a contextual token is the plain mean of all tokens it stands for; ``published=True`` gives the authors' target
plus mean of the others, which is not normalised.
reading: the rest of a frame that keeps no contextual token is dropped.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np

from .deciding import Decisions, budget_of, largest, split
from .plain import NO_SIGNALS, Grid, ReferencePlan, Signals, cosine, frames_of, identity, merging


def reference(
    features: np.ndarray,
    grid: Grid,
    *,
    keep_ratio: float | None = None,
    keep: int | None = None,
    dominant: int = 54,
    contextual: int = 10,
    published: bool = False,
    signals: Signals = NO_SIGNALS,
) -> ReferencePlan:
    """Dominant tokens by ``encoder_column``; the others go to the contextual one of most similar ``encoder_keys``."""
    frames, height, width = grid
    places = height * width
    x = frames_of(features, grid).reshape(len(features), -1)
    budget = budget_of(len(x), keep_ratio, keep)
    if budget >= len(x):
        return identity(features)
    attention = np.asarray(signals["encoder_column"], dtype=np.float64)
    keys = np.asarray(signals["encoder_keys"], dtype=np.float64)
    decide = Decisions()
    shares = split([1] * frames, [places] * frames, budget)

    home: list[int | None] = [None] * len(x)
    for t, share in enumerate(shares):
        tokens = list(range(t * places, (t + 1) * places))
        count = round(Fraction(share * dominant, dominant + contextual))
        count = min(count, share - 1) if share > 1 else count
        chosen = decide.top(attention, count, among=tokens, scale=largest(attention))
        for token in chosen:
            home[token] = token
        rest = [token for token in tokens if token not in chosen]
        wanted = share - count
        if wanted == 0:
            continue
        step = max(1, len(rest) // wanted)
        targets = rest[::step][:wanted]
        for token in rest:
            if token in targets:
                home[token] = token
            else:
                home[token] = targets[decide.best([cosine(keys[token], keys[target]) for target in targets])]

    plan = merging(home, features)
    if published:
        for place, anchor in enumerate(plan.anchors):
            others = [i for i, h in enumerate(home) if h == anchor and i != anchor]
            plan.merged[place] = x[anchor] + (x[others].mean(axis=0) if others else 0.0)
    return replace(plan, shares=shares, margin=decide.margin, tied=decide.tied)
