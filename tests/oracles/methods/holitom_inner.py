# SPDX-License-Identifier: Apache-2.0
"""HoliTom's inner half, slow: keep what the last text row attends to most; every other token is merged into the kept
token it resembles most, one after the other, each time half and half.

Who resembles whom is decided once, before anything is merged.

reading: the dropped come in the order of the sequence, so that later ones weigh more.
reading: the budget is rounded up (the authors' is rounded to even).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from . import fastv
from .deciding import Decisions
from .plain import ReferencePlan, cosines, merging


def reference(
    features: np.ndarray, rows: np.ndarray, *, keep_ratio: float | None = None, keep: int | None = None
) -> ReferencePlan:
    """``features`` are ``(N, D)`` hidden states, ``rows`` ``(heads, R, N)`` probabilities."""
    cut = fastv.reference(features, rows, keep_ratio=keep_ratio, keep=keep)
    decide = Decisions(cut.margin, cut.tied)
    states = features.astype(np.float64)
    alike = cosines(states)
    home = [i if i in cut.anchors else decide.best(alike[i], among=cut.anchors) for i in range(len(states))]
    plan = merging(home, features)
    merged = {anchor: states[anchor] for anchor in plan.anchors}
    for i, anchor in enumerate(home):
        if i != anchor:
            merged[anchor] = (merged[anchor] + states[i]) / 2
    values = np.stack([merged[anchor] for anchor in plan.anchors])
    return replace(plan, merged=values, scores=cut.scores, margin=decide.margin, tied=decide.tied)
