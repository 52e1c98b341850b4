# SPDX-License-Identifier: Apache-2.0
"""FlashVID's outer half, slow: attended and diverse tokens of each frame, and trees over time of all the others.

In a segment of frames every token that is not selected links to its most similar unselected token one frame earlier.
Strong links make trees, each merged into its root (the earliest token); too many trees are clustered frame by frame.

reading: the budget is exact and evenly split over the frames (no expansion factor); ceil(alpha * share) of a frame's
share are selected, the rest of a segment's shares is for its trees.
reading: selection is the authors' first version: distance times attention; it never takes a token twice.
reading: selected tokens take no part in the trees, in segments of one frame too.
reading: where strong links would leave fewer trees than the budget, only the strongest links count, ties to the lower
index; where they leave more, the budget is split over the frames by their roots, largest remainder, no frame with a
root without while there is one each, and roots are clustered (k = min(7, clusters), at least 2).
reading: a merged token is the plain mean of all tokens it stands for, at the place of its root or cluster centre.
reading: where a segment has no budget for trees, all that is not selected is dropped.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from fractions import Fraction

import numpy as np

from .deciding import Decisions, budget_of, largest, split
from .plain import (
    NO_SIGNALS,
    Grid,
    ReferencePlan,
    Signals,
    cosine,
    cosines,
    density_peaks,
    frames_of,
    identity,
    merging,
)

NEIGHBOURS = 7


def segments_of(links: list[float], threshold: float, fewest: int, decide: Decisions) -> list[list[int]]:
    """Frames, cut where the similarity is below the threshold, and at the lowest others while segments are few."""
    cuts = {t for t, value in enumerate(links) if decide.above(threshold, value)}
    others = [t for t in range(len(links)) if t not in cuts]
    missing = min(fewest, len(links) + 1) - 1 - len(cuts)
    if missing > 0:
        cuts |= set(decide.top([-value for value in links], missing, among=others))
    result = [[0]]
    for t in range(len(links)):
        if t in cuts:
            result.append([])
        result[-1].append(t + 1)
    return result


def attended_and_diverse(x: np.ndarray, attention: np.ndarray, count: int, decide: Decisions) -> list[int]:
    """``count`` rows, each the best product of its attention and its cosine distance to the nearest one chosen."""
    n = len(x)
    distance = (1.0 - cosines(x)) * attention[None, :] / largest(attention)
    chosen: list[int] = []
    while len(chosen) < count:
        others = [i for i in range(n) if i not in chosen]
        compared = [[i for i in (chosen or range(n)) if i != j] for j in range(n)]
        values = [min((distance[i, j] for i in compared[j]), default=0.0) for j in range(n)]
        chosen.append(decide.best(values, among=others))
    return chosen


def reference(
    features: np.ndarray,
    grid: Grid,
    *,
    keep_ratio: float | None = None,
    keep: int | None = None,
    alpha: float = 0.7,
    temporal_threshold: float = 0.8,
    segment_threshold: float = 0.9,
    min_segment_num: int = 8,
    signals: Signals = NO_SIGNALS,
) -> ReferencePlan:
    """Attention is the signal ``encoder_column``; ``shares`` are the frames' budgets."""
    frames, height, width = grid
    places = height * width
    x = frames_of(features, grid)
    flat = x.reshape(len(features), -1)
    budget = budget_of(len(features), keep_ratio, keep)
    if budget >= len(features):
        return identity(features)
    attention = np.asarray(signals["encoder_column"], dtype=np.float64).reshape(frames, places)
    decide = Decisions()
    means = [frame.mean(axis=0) for frame in x]
    links = [cosine(means[t], means[t + 1]) for t in range(frames - 1)]
    shares = split([1] * frames, [places] * frames, budget)
    table = cosines(flat)

    home: list[int | None] = [None] * len(flat)
    for part in segments_of(links, segment_threshold, min_segment_num, decide):
        trees = 0  # how many the segment may keep
        free: dict[int, list[int]] = {}
        for t in part:
            selected = math.ceil(Fraction(str(alpha)) * shares[t])
            trees += shares[t] - selected
            chosen = [t * places + p for p in attended_and_diverse(x[t], attention[t], selected, decide)]
            for token in chosen:
                home[token] = token
            free[t] = [i for i in range(t * places, (t + 1) * places) if i not in chosen]
        if trees == 0:
            continue
        parent = _parents(part, free, table, temporal_threshold, trees, decide)
        root = {}
        for t in part:
            for token in free[t]:
                root[token] = root[parent[token]] if token in parent else token
        centre = _clustered(part, free, root, flat, trees, decide)
        for token, top in root.items():
            home[token] = centre.get(top)
    return replace(merging(home, features), shares=shares, margin=decide.margin, tied=decide.tied)


def _parents(
    part: list[int], free: dict[int, list[int]], table: np.ndarray, threshold: float, trees: int, decide: Decisions
) -> dict[int, int]:
    """The link of each token that has a strong enough one, as many as leave ``trees`` trees or more."""
    best: dict[int, int] = {}
    for before, t in itertools.pairwise(part):
        for token in free[t]:
            if free[before]:
                best[token] = decide.best(table[token], among=free[before])
    most = sum(len(tokens) for tokens in free.values()) - trees
    likeness = {token: float(table[token, target]) for token, target in best.items()}
    strong = [token for token in best if decide.above(likeness[token], threshold)]
    if len(strong) > most:
        strong = decide.top([likeness.get(i, 0.0) for i in range(len(table))], most, among=strong)
    return {token: best[token] for token in strong}


def _clustered(
    part: list[int],
    free: dict[int, list[int]],
    root: dict[int, int],
    flat: np.ndarray,
    trees: int,
    decide: Decisions,
) -> dict[int, int]:
    """Root -> the root it is merged into; roots of frames without a budget are missing."""
    roots = {t: [token for token in free[t] if root[token] == token] for t in part}
    counts = [len(roots[t]) for t in part]
    if sum(counts) <= trees:
        return {token: token for tokens in roots.values() for token in tokens}
    result: dict[int, int] = {}
    for t, share in zip(part, split(counts, counts, trees, at_least_one=True), strict=True):
        if share == 0:
            continue
        tree_means = [flat[[i for i, top in root.items() if top == token]].mean(axis=0) for token in roots[t]]
        _, nearest = density_peaks(tree_means, share, max(2, min(NEIGHBOURS, share)), decide)
        result.update({token: roots[t][nearest[place]] for place, token in enumerate(roots[t])})
    return result
