# SPDX-License-Identifier: Apache-2.0
"""FastV, slow: keep the tokens that the last text row attends to most. FlashVID's inner half is the same cut.

reading: the last row's attention, as the authors' code has it; the mean over all rows that the paper speaks of would
need the whole map.
reading: heads count alike, each with the probability it gives of all that it sees, text included.
reading: the budget is rounded up (the authors of FastV round to even).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .deciding import Decisions, budget_of, largest
from .plain import ReferencePlan, identity, keeping


def attended(rows: np.ndarray) -> np.ndarray:
    """``(heads, R, N)`` probabilities -> ``(N,)`` the mean over heads of the last row."""
    heads, _, n = rows.shape
    return np.array([sum(float(rows[head, -1, i]) for head in range(heads)) / heads for i in range(n)])


def reference(
    features: np.ndarray, rows: np.ndarray, *, keep_ratio: float | None = None, keep: int | None = None
) -> ReferencePlan:
    """The budget's worth of tokens most attended to, ties to the lower index; ``rows`` are ``(heads, R, N)``."""
    budget = budget_of(len(features), keep_ratio, keep)
    if budget >= len(features):
        return identity(features)
    decide = Decisions()
    scores = attended(rows)
    kept = decide.top(scores, budget, scale=largest(scores))
    return replace(keeping(kept, features), scores=scores, margin=decide.margin, tied=decide.tied)
