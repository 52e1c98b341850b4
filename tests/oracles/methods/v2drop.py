# SPDX-License-Identifier: Apache-2.0
"""V2Drop, slow: keep the tokens whose hidden states a layer has changed most, by Euclidean distance. No attention.

reading: ratios of a schedule are of the tokens that entered its first stage (the authors': of what is left, where a
ratio of 0 leaves one token); :data:`RATIOS` are theirs for LLaVA, multiplied up, at the ends of layers 2, 16 and 21.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from .deciding import Decisions, budget_of, largest
from .plain import ReferencePlan, identity, keeping, squared_distance
from .schedule import Staged, staged

RATIOS = (0.5, 0.25, 0.0)
LAST_LAYERS = (2, 16, 21)

StatesAt = Callable[[int, list[int]], tuple[np.ndarray, np.ndarray]]
"""``(stage, tokens that are there)`` -> their hidden states after and before the layer that ends the stage."""


def reference(
    features: np.ndarray, before: np.ndarray, *, keep_ratio: float | None = None, keep: int | None = None
) -> ReferencePlan:
    """``features`` and ``before`` are ``(N, D)`` hidden states that leave and enter the layer."""
    budget = budget_of(len(features), keep_ratio, keep)
    if budget >= len(features):
        return identity(features)
    decide = Decisions()
    after = features.astype(np.float64)
    scores = np.array(
        [math.sqrt(squared_distance(a, b)) for a, b in zip(after, before.astype(np.float64), strict=True)]
    )
    kept = decide.top(scores, budget, scale=largest(scores))
    return replace(keeping(kept, features), scores=scores, margin=decide.margin, tied=decide.tied)


def schedule(entered: int, states_at: StatesAt, *, ratios: Sequence[float] = RATIOS) -> Staged:
    """What each stage leaves."""

    def decide(stage: int, there: list[int], count: int) -> ReferencePlan:
        return reference(*states_at(stage, there), keep=count)

    return staged(entered, ratios, decide)
