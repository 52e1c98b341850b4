# SPDX-License-Identifier: Apache-2.0
"""TOVA, slow: all heads keep what the last text row attends to most on average over the heads.

reading: one choice for all key-value heads of a layer; text is never cut, so the budget is of visual tokens.
"""

from __future__ import annotations

import numpy as np

from . import fastv
from .deciding import budget_of
from .heads import ReferenceHeads, top_of_each


def reference(rows: np.ndarray, *, keep_ratio: float | None = None, keep: int | None = None) -> ReferenceHeads:
    """``rows`` are ``(heads, R, N)`` probabilities of text rows, of which the last counts."""
    return top_of_each([fastv.attended(rows)], budget_of(rows.shape[2], keep_ratio, keep))
