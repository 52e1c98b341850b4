# SPDX-License-Identifier: Apache-2.0
"""ToMe's bipartite matching before the LLM, slow: rounds of merging even rows into the odd rows they resemble.

reading: the metric is the feature itself, merged ones being means of all their tokens.
reading: between rounds the rows stand in raster order of their anchors (the authors put unmerged even rows first, by
similarity), and a merged token stands where the odd row that took it in stood.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .deciding import Decisions, budget_of
from .plain import NO_SIGNALS, Grid, ReferencePlan, Signals, cosine, frames_of, identity, merging


def reference(
    features: np.ndarray,
    grid: Grid,
    *,
    keep_ratio: float | None = None,
    keep: int | None = None,
    signals: Signals = NO_SIGNALS,
) -> ReferencePlan:
    """Rounds of at most half of what is left, until the budget is met."""
    x = frames_of(features, grid).reshape(len(features), -1)
    budget = budget_of(len(x), keep_ratio, keep)
    if budget >= len(x):
        return identity(features)
    decide = Decisions()
    groups = {i: [i] for i in range(len(x))}  # anchor -> its tokens
    while len(groups) > budget:
        anchors = sorted(groups)
        mean = {anchor: x[groups[anchor]].mean(axis=0) for anchor in anchors}
        even, odd = anchors[0::2], anchors[1::2]
        target: list[int] = []
        similarity: list[float] = []
        for a in even:
            to_odd = [cosine(mean[a], mean[b]) for b in odd]
            best = decide.best(to_odd)
            target.append(odd[best])
            similarity.append(to_odd[best])
        merges = min(len(anchors) - budget, len(anchors) // 2)
        for place in decide.top(similarity, merges):
            groups[target[place]] += groups.pop(even[place])
    home: list[int | None] = [None] * len(x)
    for anchor, members in groups.items():
        for member in members:
            home[member] = anchor
    return replace(merging(home, features), margin=decide.margin, tied=decide.tied)
