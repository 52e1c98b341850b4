# SPDX-License-Identifier: Apache-2.0
"""SparseVLM, slow: keep what the raters among the text attend to, and recycle the best of the rest in clusters.

Raters are found once, on what entered the LLM: each visual embedding spreads a softmax over the text (raw products, no
scaling); text rows with more than the mean of it rate. At a layer a token's score is its attention by the raters, mean
over them and over heads. Of the dropped the best 30 % are clustered, a tenth as many clusters.

reading: kept tokens and clusters together are the budget: as many are kept as leave room for the clusters of the
rest (of two such numbers the larger), floor(pool / 10) + 1 of a pool of floor(0.3 * dropped) + 1. A budget that has no
room for all clusters keeps one token and makes the rest clusters.
reading: where no row is above the mean (one row, or all alike) all rows rate.
reading: raters are those of all visual tokens that entered, also where a stage before has pruned.
reading: a recycled token is the plain mean of its cluster, at the place of the cluster's centre (the authors put it
behind all others); what is not in the pool is dropped.
reading: clusters look at as many neighbours as there are clusters, but at least 2 (with one, the token itself, noise
would decide).
reading: no counts that depend on the rank of the attention, no fixed lists: the budget is given.
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np

from .deciding import Decisions, budget_of, largest
from .plain import ReferencePlan, density_peaks, identity, merging


def relevance(visual: np.ndarray, text: np.ndarray) -> list[float]:
    """For each text row its share of the softmax over text, mean over visual tokens."""
    total = [0.0] * len(text)
    for token in visual.astype(np.float64):
        products = [float(token @ word) for word in text.astype(np.float64)]
        weights = [math.exp(value - max(products)) for value in products]
        for r, weight in enumerate(weights):
            total[r] += weight / math.fsum(weights) / len(visual)
    return total


def raters(visual: np.ndarray, text: np.ndarray, decide: Decisions | None = None) -> list[int]:
    """The text rows that rate, ``visual`` and ``text`` as they entered the LLM."""
    decide = decide or Decisions()
    shares = relevance(visual, text)
    mean = sum(shares) / len(shares)
    return [r for r, share in enumerate(shares) if decide.above(share, mean)] or list(range(len(shares)))


def pool_of(dropped: int) -> int:
    """How many of the dropped are recycled."""
    return min(dropped, math.floor(Fraction("0.3") * dropped) + 1)


def clusters_of(dropped: int) -> int:
    """How many tokens they are recycled into."""
    return pool_of(dropped) // 10 + 1 if dropped else 0


def parts(total: int, budget: int) -> tuple[int, int]:
    """How many tokens are kept and how many clusters are made."""
    for kept in range(budget, 0, -1):
        if kept + clusters_of(total - kept) <= budget:
            return kept, budget - kept
    return 1, budget - 1


def reference(
    features: np.ndarray,
    rows: np.ndarray,
    visual: np.ndarray,
    text: np.ndarray,
    *,
    keep_ratio: float | None = None,
    keep: int | None = None,
) -> ReferencePlan:
    """``rows`` are ``(heads, R, N)`` of every text row; ``visual`` and ``text`` embeddings as they entered the LLM.

    ``order``: the kept tokens by falling score, then the centres; ``shares``: how many there are of each.
    """
    n = len(features)
    budget = budget_of(n, keep_ratio, keep)
    if budget >= n:
        return identity(features)
    decide = Decisions()
    rating = raters(visual, text, decide)
    scores = np.array([np.mean([head[r, i] for head in rows for r in rating]) for i in range(n)])
    kept, clusters = parts(n, budget)
    order = decide.top(scores, kept, scale=largest(scores))
    home: list[int | None] = [i if i in order else None for i in range(n)]
    if clusters:
        rest = [i for i in range(n) if i not in order]
        pool = sorted(decide.top(scores, pool_of(n - kept), among=rest, scale=largest(scores)))
        points = [features[i].astype(np.float64) for i in pool]
        centres, nearest = density_peaks(points, clusters, max(2, clusters), decide)
        order += [pool[centre] for centre in centres]
        for i, centre in zip(pool, nearest, strict=True):
            home[i] = pool[centre]
    plan = merging(home, features)
    return replace(plan, scores=scores, order=order, shares=[kept, clusters], margin=decide.margin, tied=decide.tied)
