# SPDX-License-Identifier: Apache-2.0
"""KNorm, slow: each key-value head keeps the tokens of shortest keys; a rotation does not change a length."""

from __future__ import annotations

import math

import numpy as np

from .deciding import budget_of
from .heads import ReferenceHeads, top_of_each


def reference(keys: np.ndarray, *, keep_ratio: float | None = None, keep: int | None = None) -> ReferenceHeads:
    """``keys`` are ``(kv_heads, N, d)`` of the visual tokens; scores are minus Euclidean lengths."""
    lengths = [[-math.sqrt(sum(float(x) ** 2 for x in key)) for key in head] for head in keys]
    return top_of_each(lengths, budget_of(keys.shape[1], keep_ratio, keep))
