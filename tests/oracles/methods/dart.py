# SPDX-License-Identifier: Apache-2.0
"""DART, slow: a few pivots, and for each of them the visual tokens that duplicate it least.

Pivots are visual tokens and text tokens after the video whose keys are longest by the sum of absolute values, all
key-value heads taken as one. Visual pivots stay, text pivots only choose. In turn each pivot takes the tokens least
similar to it (cosine of hidden states) of those that are left.

reading: pivots take turns in the order of the sequence, visual ones first (the authors': that of a Python set).
reading: the budget beyond the visual pivots is split evenly over all pivots, the first of them get the remainder
(the authors' 4 + 8 * floor(n R / 8)); with a budget of fewer than the visual pivots those of longest keys stay.
reading: where there are fewer text tokens than text pivots, all of them are pivots.
reading: hidden states as they are; an RMS norm without weights would not change a cosine.
reading: in the form of features alone the features stand for the keys and there are no text pivots.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .deciding import Decisions, budget_of, largest, split
from .plain import ReferencePlan, cosine, identity, keeping


def lengths(keys: np.ndarray) -> np.ndarray:
    """``(kv_heads, n, d)`` -> ``(n,)`` sums of absolute values."""
    return np.array([sum(abs(float(x)) for head in keys[:, i] for x in head) for i in range(keys.shape[1])])


def reference(
    features: np.ndarray,
    keys: np.ndarray | None = None,
    text_features: np.ndarray | None = None,
    text_keys: np.ndarray | None = None,
    *,
    keep_ratio: float | None = None,
    keep: int | None = None,
    visual_pivots: int = 4,
    text_pivots: int = 4,
) -> ReferencePlan:
    """``features`` are ``(N, D)`` hidden states; without ``keys`` and text it is the form of features alone.

    ``order``: visual pivots in the order of the sequence, then the picks; ``shares``: how many picks each pivot has.
    """
    budget = budget_of(len(features), keep_ratio, keep)
    if budget >= len(features):
        return identity(features)
    decide = Decisions()
    states = features.astype(np.float64)
    long = lengths(features[None] if keys is None else keys)
    order = sorted(decide.top(long, min(visual_pivots, budget), scale=largest(long)))
    pivots = [states[i] for i in order]
    if text_keys is not None and text_features is not None:
        of_text = lengths(text_keys)
        chosen = sorted(decide.top(of_text, min(text_pivots, len(of_text)), scale=largest(of_text)))
        pivots += [text_features[r].astype(np.float64) for r in chosen]
    shares = split([1] * len(pivots), [len(features)] * len(pivots), budget - len(order))
    for pivot, share in zip(pivots, shares, strict=True):
        left = [i for i in range(len(states)) if i not in order]
        order += decide.top([-cosine(pivot, state) for state in states], share, among=left)
    return replace(keeping(order, features), order=order, margin=decide.margin, tied=decide.tied)
