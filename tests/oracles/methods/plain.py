# SPDX-License-Identifier: Apache-2.0
"""What the slow references of the methods share: the result, cosines, clusters. Loops and float64, no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from .deciding import Decisions, Numbers, largest, resolved

Grid = tuple[int, int, int]
Signals = Mapping[str, np.ndarray]
NO_SIGNALS: Signals = MappingProxyType({})


@dataclass(frozen=True)
class ReferencePlan:
    """What a method decides on N tokens of D channels, of which K go on.

    Args:
        anchors: the K tokens that go on, sorted.
        assign: for each of the N tokens its place among the anchors, -1 for dropped.
        merged: (K, D) the features that go on.
        scores: (N,) what the method ranked by, higher is better; None where it ranks more than once.
        order: the anchors in the order in which a greedy method picked them.
        shares: the budget of each block (frame, segment, chunk) that the method splits its budget over.
        mixing: (K, N) weights of the tokens in each anchor, where one token feeds several anchors.
        margin: the smallest gap, relative to the values compared, of all decisions that were not exact ties.
        tied: whether some decision was an exact tie.
    """

    anchors: list[int]
    assign: list[int]
    merged: np.ndarray
    scores: np.ndarray | None = None
    order: list[int] | None = None
    shares: list[int] | None = None
    mixing: np.ndarray | None = None
    margin: float = math.inf
    tied: bool = False


# --- features --------------------------------------------------------------------------------------------------------


def frames_of(features: np.ndarray, grid: Grid) -> np.ndarray:
    """``(T*H*W, D)`` in raster order -> ``(T, H*W, D)`` float64."""
    frames, height, width = grid
    if features.ndim != 2 or len(features) != frames * height * width:
        raise ValueError(f"features of shape {features.shape} do not fill the grid {grid}")
    return features.astype(np.float64).reshape(frames, height * width, -1)


def unit(vector: np.ndarray) -> np.ndarray:
    """The vector at length 1; a zero vector stays zero."""
    length = math.sqrt(float(vector @ vector))
    return vector / length if length > 0 else np.zeros_like(vector)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of the angle; 0 if either vector is zero."""
    return float(unit(a) @ unit(b))


def cosines(rows: np.ndarray, others: np.ndarray | None = None) -> np.ndarray:
    """All cosines between two sets of vectors."""
    left = np.stack([unit(row) for row in rows])
    right = left if others is None else np.stack([unit(row) for row in others])
    return left @ right.T


def min_max(values: Numbers) -> np.ndarray:
    """Values shifted and scaled to [0, 1]; equal values (up to rounding) become 0."""
    array = np.asarray(values, dtype=np.float64)
    low, high = float(array.min()), float(array.max())
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        return np.zeros_like(array)
    return (array - low) / (high - low)


def squared_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Squared Euclidean distance."""
    return float((a - b) @ (a - b))


# --- clusters --------------------------------------------------------------------------------------------------------


def density_peaks(
    points: Sequence[np.ndarray], clusters: int, neighbours: int, decide: Decisions
) -> tuple[list[int], list[int]]:
    """DPC-kNN without noise: (sorted centres, for each point the nearest centre), ties to the lower index.

    Density: exp of minus the mean squared distance (over D) to the nearest points, itself included. A centre has a
    large product of density and distance to the nearest denser point; of equally dense points the first is "denser".
    """
    n = len(points)
    table = np.array([[squared_distance(a, b) / len(a) for b in points] for a in points])
    crowding = [float(np.mean(sorted(row)[: min(neighbours, n)])) for row in table]  # minus log density
    scale = largest(crowding)
    rank = [resolved(value, scale) for value in crowding]
    score: list[float] = []
    for i in range(n):
        denser = [j for j in range(n) if rank[j] < rank[i] or (rank[j] == rank[i] and j < i)]
        reach = min(table[i][j] for j in denser) if denser else float(table.max())
        for j in range(n):
            if denser and j != i and table[i][j] <= reach:
                decide.note(abs(rank[i] - rank[j]))
        score.append(-crowding[i] + 0.5 * math.log(reach) if reach > 0 else -math.inf)
    centres = sorted(decide.top(score, clusters, scale=max(1.0, scale)))
    width = largest(table)
    nearest = [i if i in centres else decide.best(-table[i], among=centres, scale=width) for i in range(n)]
    return centres, nearest


# --- plans -----------------------------------------------------------------------------------------------------------


def identity(features: np.ndarray) -> ReferencePlan:
    """All tokens go on as they are."""
    everything = list(range(len(features)))
    return ReferencePlan(everything, everything, features.astype(np.float64))


def keeping(kept: Iterable[int], features: np.ndarray) -> ReferencePlan:
    """The tokens ``kept`` go on, all others are dropped."""
    anchors = sorted(kept)
    assign = [anchors.index(i) if i in set(anchors) else -1 for i in range(len(features))]
    return ReferencePlan(anchors, assign, features.astype(np.float64)[anchors])


def merging(home: Sequence[int | None], features: np.ndarray) -> ReferencePlan:
    """Each token goes to the token ``home`` (an anchor's is itself; None: dropped); an anchor becomes their mean."""
    anchors = sorted({h for h in home if h is not None})
    assign = [-1 if h is None else anchors.index(h) for h in home]
    values = features.astype(np.float64)
    merged = [values[[i for i, h in enumerate(home) if h == anchor]].mean(axis=0) for anchor in anchors]
    return ReferencePlan(anchors, assign, np.stack(merged))
