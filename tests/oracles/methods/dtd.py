# SPDX-License-Identifier: Apache-2.0
"""DTD of TimeChat-Online, slow: drop what is like the same place one frame earlier (absolute threshold, features).

reading: with a budget the threshold is not used and the same order is cut, which makes it EVS.
reading: the threshold is absolute (the authors' default); the relative and the pixel form are not given here.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from . import evs
from .deciding import Decisions
from .plain import NO_SIGNALS, Grid, ReferencePlan, Signals, cosine, frames_of, keeping


def reference(
    features: np.ndarray,
    grid: Grid,
    *,
    threshold: float = 0.5,
    keep_ratio: float | None = None,
    keep: int | None = None,
    signals: Signals = NO_SIGNALS,
) -> ReferencePlan:
    """Frame 0, and all tokens whose cosine to the previous frame is not above the threshold."""
    if keep_ratio is not None or keep is not None:
        return evs.reference(features, grid, keep_ratio=keep_ratio, keep=keep)
    x = frames_of(features, grid)
    frames, places, _ = x.shape
    decide = Decisions()
    kept = list(range(places))
    for t in range(1, frames):
        for p in range(places):
            if not decide.above(cosine(x[t, p], x[t - 1, p]), threshold):
                kept.append(t * places + p)
    plan = keeping(kept, features)
    return replace(plan, scores=evs.dissimilarity(x), margin=decide.margin, tied=decide.tied)
