# SPDX-License-Identifier: Apache-2.0
"""Slow, plain reference of PruneVid's first stage (arXiv 2412.16117): loops and float64, no torch.

It shares no code with the package. Tests compare the package with it; where the two differ, one of them is wrong.
Sums are divided as late as possible, so features on an integer grid give exact ties and the tie rules really decide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

RESOLUTION = 4e-6  # of |a|^2 + |b|^2: a squared distance up to this is rounding noise in fp32 and counts as 0
STATIC_SLACK = 1e-6  # a similarity this little below tau still counts as reaching it
UNLABELLED = -1


@dataclass(frozen=True)
class Partition:
    """Where every token goes; positions are ``h * W + w``, tokens ``(t * H + h) * W + w``."""

    anchors: list[int]  # sorted tokens that go on
    assign: list[int]  # for each of the T*H*W tokens its place in anchors
    segments: list[tuple[int, int]]  # frames [start, stop)
    static: list[set[int]]  # per segment: the positions that are static


def portion(count: int, ratio: float) -> int:
    """floor(count * ratio), at least 1, with the ratio read as the decimal that was written."""
    return max(1, math.floor(Fraction(str(ratio)) * count))


# --- clustering ------------------------------------------------------------------------------------------------------


def squared_distances(points: list[np.ndarray]) -> list[list[float]]:
    """All squared Euclidean distances; those below the numerical resolution are exactly 0."""
    table = [[0.0] * len(points) for _ in points]
    for i, a in enumerate(points):
        for j in range(i):
            b = points[j]
            squared = float(np.dot(a - b, a - b))
            if squared <= RESOLUTION * float(np.dot(a, a) + np.dot(b, b)):
                squared = 0.0
            table[i][j] = table[j][i] = squared
    return table


def dpc_knn(
    points: list[np.ndarray], clusters: int, *, divisor: int = 1, distance_scale: str = "raw", neighbours: int = 7
) -> tuple[list[int], list[int]]:
    """Cluster ``points / divisor``: (centres in order of falling score, label of each point = rank of its centre)."""
    n = len(points)
    clusters = min(max(1, clusters), n)
    table = squared_distances(points)

    # `unit` turns an entry of the table into the squared distance the method speaks of.
    unit = float(divisor * divisor * len(points[0]))
    if distance_scale == "relative":
        total = math.fsum(value for row in table for value in row)
        if total > 0:
            unit = total / (n * (n - 1))
    elif distance_scale != "raw":
        raise ValueError(f"distance_scale must be 'raw' or 'relative', got {distance_scale!r}")

    k = min(neighbours, n)
    density = [-math.fsum(sorted(row)[:k]) / (k * unit) for row in table]

    score: list[float] = []
    for i in range(n):
        to_denser = [table[i][j] for j in range(n) if density[j] > density[i] or (density[j] == density[i] and j < i)]
        reach = min(to_denser) if to_denser else max(max(row) for row in table)
        score.append(density[i] + (math.log(math.sqrt(reach / unit)) if reach > 0 else -math.inf))

    centres = sorted(range(n), key=lambda i: (-score[i], i))[:clusters]
    labels: list[int] = []
    for i in range(n):
        nearest = min(sorted(centres), key=lambda c: table[i][c])  # min keeps the first of equals: lowest index
        labels.append(centres.index(i if i in centres else nearest))
    return centres, labels


# --- segments --------------------------------------------------------------------------------------------------------


def runs_of(labels: list[int]) -> list[tuple[int, int, int]]:
    """Maximal runs of equal labels as (label, start, stop)."""
    runs: list[tuple[int, int, int]] = []
    for place, label in enumerate(labels):
        if runs and runs[-1][0] == label:
            runs[-1] = (label, runs[-1][1], place + 1)
        else:
            runs.append((label, place, place + 1))
    return runs


def refine_labels(labels: list[int]) -> list[int]:
    """Keep each label's longest runs; the frames left over join the longer neighbouring run, the left one on a tie."""
    result = [UNLABELLED] * len(labels)
    for label in set(labels):
        own = [(start, stop) for value, start, stop in runs_of(labels) if value == label]
        longest = max(stop - start for start, stop in own)
        for start, stop in own:
            if longest > 1 and stop - start == longest:
                result[start:stop] = [label] * longest

    for value, start, stop in runs_of(result):  # the list is complete before any block is filled
        if value != UNLABELLED:
            continue
        left = 0  # measured in `result`, so blocks filled earlier count
        while start - left - 1 >= 0 and result[start - left - 1] == result[start - 1]:
            left += 1
        right = 0
        while stop + right < len(result) and result[stop + right] == result[stop]:
            right += 1
        label = 0
        if left or right:
            label = result[start - 1] if left >= right else result[stop]
        result[start:stop] = [label] * (stop - start)
    return result


def find_segments(
    tokens: np.ndarray, temporal_segment_ratio: float, *, distance_scale: str = "raw", neighbours: int = 7
) -> list[tuple[int, int]]:
    """Split the frames of ``tokens`` (T, L, D) into runs [start, stop) that look alike."""
    frames, length, _ = tokens.shape
    clusters = portion(frames, temporal_segment_ratio)
    if clusters >= frames:
        return [(t, t + 1) for t in range(frames)]
    sums = [tokens[t].sum(axis=0) for t in range(frames)]
    _, labels = dpc_knn(sums, clusters, divisor=length, distance_scale=distance_scale, neighbours=neighbours)
    return [(start, stop) for _, start, stop in runs_of(refine_labels(labels))]


# --- static and dynamic tokens ---------------------------------------------------------------------------------------


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of the angle; 0 if either vector is zero."""
    lengths = math.sqrt(float(np.dot(a, a))) * math.sqrt(float(np.dot(b, b)))
    return float(np.dot(a, b)) / lengths if lengths > 0 else 0.0


def static_positions(segment: np.ndarray, tau: float) -> set[int]:
    """Positions of ``segment`` (frames, L, D) whose mean cosine over all pairs of frames reaches tau."""
    frames, length, _ = segment.shape
    found: set[int] = set()
    if frames == 1:
        return found
    for position in range(length):
        values: list[float] = []
        for later in range(frames):
            for earlier in range(later):
                values.append(cosine(segment[later, position], segment[earlier, position]))
        if math.fsum(values) / len(values) >= tau - STATIC_SLACK:
            found.add(position)
    return found


def reference_partition(
    features: np.ndarray,
    grid: tuple[int, int, int],
    tau: float,
    cluster_ratio: float,
    temporal_segment_ratio: float,
    *,
    distance_scale: str = "raw",
    min_tokens: int = 14,
    neighbours: int = 7,
) -> Partition:
    """Partition ``features`` (T*H*W, D), raster order, of ``grid`` (T, H, W) into the clusters of stage 1."""
    frames, height, width = grid
    length = height * width
    if features.ndim != 2 or features.shape[0] != frames * length:
        raise ValueError(f"features of shape {features.shape} do not fill the grid {grid}")
    tokens = features.astype(np.float64).reshape(frames, length, -1)

    def centre_of_each(points: list[np.ndarray], divisor: int) -> list[int]:
        if len(points) <= min_tokens:
            return list(range(len(points)))
        wanted = portion(len(points), cluster_ratio)
        centres, labels = dpc_knn(points, wanted, divisor=divisor, distance_scale=distance_scale, neighbours=neighbours)
        return [centres[label] for label in labels]

    segments = find_segments(tokens, temporal_segment_ratio, distance_scale=distance_scale, neighbours=neighbours)
    static: list[set[int]] = []
    anchor_of: dict[int, int] = {}  # token -> the token it is merged into
    for start, stop in segments:
        still = static_positions(tokens[start:stop], tau)
        static.append(still)

        fixed = sorted(still)
        sums = [tokens[start:stop, position].sum(axis=0) for position in fixed]
        for position, centre in zip(fixed, centre_of_each(sums, stop - start), strict=True):
            for t in range(start, stop):
                anchor_of[t * length + position] = start * length + fixed[centre]

        moving = [position for position in range(length) if position not in still]
        for t in range(start, stop):
            points = [tokens[t, position] for position in moving]
            for position, centre in zip(moving, centre_of_each(points, 1), strict=True):
                anchor_of[t * length + position] = t * length + moving[centre]

    anchors = sorted(set(anchor_of.values()))
    place = {anchor: index for index, anchor in enumerate(anchors)}
    assign = [place[anchor_of[token]] for token in range(frames * length)]
    return Partition(anchors, assign, segments, static)


def reference_merge(features: np.ndarray, partition: Partition) -> np.ndarray:
    """Values (K, D) of the merged tokens in the method's own order of means: static over time first, then positions."""
    values = features.astype(np.float64)
    length = len(values) // partition.segments[-1][1]
    merged: list[np.ndarray] = []
    for index, anchor in enumerate(partition.anchors):
        members = [token for token, place in enumerate(partition.assign) if place == index]
        for (start, stop), still in zip(partition.segments, partition.static, strict=True):
            if start <= anchor // length < stop and anchor % length in still:
                positions = sorted({token % length for token in members})
                means = [np.mean([values[t * length + p] for t in range(start, stop)], axis=0) for p in positions]
                merged.append(np.mean(means, axis=0))
                break
        else:
            merged.append(np.mean([values[token] for token in members], axis=0))
    return np.stack(merged)


# --- exact budgets ---------------------------------------------------------------------------------------------------


def plain_shares(weights: list[int], capacities: list[int], budget: int) -> list[int]:
    """Largest-remainder split; what a full block cannot take is split again, by the same rule, over those with room."""
    shares = [0] * len(weights)
    left = min(budget, sum(capacities))
    while left > 0:
        room = [i for i in range(len(weights)) if shares[i] < capacities[i]]
        weight = {i: weights[i] for i in room}
        total = sum(weight.values())
        if total == 0:  # nothing to go by: all alike
            weight = dict.fromkeys(room, 1)
            total = len(room)
        offer = {i: left * weight[i] // total for i in room}
        by_remainder = sorted(room, key=lambda i: (-(left * weight[i] % total), i))
        for i in by_remainder[: left - sum(offer.values())]:
            offer[i] += 1
        for i in room:
            taken = min(offer[i], capacities[i] - shares[i])
            shares[i] += taken
            left -= taken
    return shares


def reference_budget_shares(weights: list[int], capacities: list[int], budget: int) -> list[int]:
    """Split ``budget`` over blocks: sums to min(budget, sum of capacities), ties to the earlier block.

    If the plain split leaves a block that has capacity with nothing although the budget has one for each, every such
    block gets 1 first and the rest is split over the capacity that remains.
    """
    shares = plain_shares(weights, capacities, budget)
    usable = [i for i in range(len(weights)) if capacities[i] > 0]
    if budget < len(usable) or all(shares[i] > 0 for i in usable):
        return shares
    first = [1 if capacity > 0 else 0 for capacity in capacities]
    remaining = [capacity - one for capacity, one in zip(capacities, first, strict=True)]
    more = plain_shares(weights, remaining, budget - len(usable))
    return [one + extra for one, extra in zip(first, more, strict=True)]
