# SPDX-License-Identifier: Apache-2.0
"""Temporal segments: runs of frames that look alike (PruneVid, arXiv 2412.16117, section 3.1)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from tokenprune.cluster import DistanceScale, dpc_knn

Segment = tuple[int, int]
"""Frames ``[start, stop)``."""

Label = TypeVar("Label")


def label_frames(
    frames: Tensor, clusters: int, *, unit: Tensor, neighbours: int, distance_scale: DistanceScale = "relative"
) -> Tensor:
    """Cluster T frames by DPC-KNN: ``(T,)`` int64, the rank of the cluster each belongs to.

    Args:
        frames: ``(T, D)`` fp32 or fp64, one vector a frame, at any common scale.
        clusters: how many, in 1..T.
        unit: ``(1,)`` fp64, the squared distance that counts as 1 for ``distance_scale="raw"``.
        neighbours: as in :func:`tokenprune.cluster.dpc_knn`.
        distance_scale: as in :func:`tokenprune.cluster.dpc_knn`.
    """
    counts = torch.full((1,), clusters, dtype=torch.int64, device=frames.device)
    # The frames are few, so fp64 costs nothing here.
    found = dpc_knn(frames.double()[None], counts, unit, neighbours=neighbours, distance_scale=distance_scale)
    return found.ranks.gather(1, found.centres)[0]


def segments_of(labels: Sequence[int]) -> list[Segment]:
    """The segments of frames with these cluster labels, made contiguous in time.

    A label for each frame, or more, gives one segment a frame.
    """
    if len(set(labels)) == len(labels):
        return [(frame, frame + 1) for frame in range(len(labels))]
    stops = list(itertools.accumulate(length for _, length in _runs(refine_labels(list(labels)))))
    return list(itertools.pairwise([0, *stops]))


def refine_labels(labels: list[int]) -> list[int]:
    """Make cluster labels of consecutive frames contiguous.

    Each label keeps its longest runs, if they are longer than one frame; every stretch of frames left over takes the
    label of the longer of the two runs beside it, the earlier on a tie, or 0 where there is none.
    """
    runs = _runs(labels)
    longest: dict[int, int] = {}
    for label, length in runs:
        longest[label] = max(length, longest.get(label, 0))
    kept = _runs([label if 1 < longest[label] == length else None for label, length in runs for _ in range(length)])
    done: list[tuple[int, int]] = []  # runs so far; neighbours of one label are one run
    for place, (label, length) in enumerate(kept):
        before = done[-1] if done else (0, 0)
        if label is None:
            after = kept[place + 1] if place + 1 < len(kept) else (None, 0)
            label = before[0] if after[0] is None or before[1] >= after[1] else after[0]
        if done and before[0] == label:
            done[-1] = (label, before[1] + length)
        else:
            done.append((label, length))
    return [label for label, length in done for _ in range(length)]


def _runs(labels: list[Label]) -> list[tuple[Label, int]]:
    """Maximal runs of equal labels: (label, length)."""
    return [(label, sum(1 for _ in run)) for label, run in itertools.groupby(labels)]
