# SPDX-License-Identifier: Apache-2.0
"""Density peaks of groups of tokens of any sizes, at the features' own scale: FastVID, FlashVID, HoliTom."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tokenprune.batching import batches
from tokenprune.cluster import dpc_knn
from tokenprune.device import upload

NEIGHBOURS = 7


def as_many_as_clusters(count: int) -> int:
    """Neighbours that FlashVID and HoliTom look at: as many as clusters, up to 7.

    At least 2, where their code has 1 and noise decides: a token's nearest is itself, and all are equally dense.
    """
    return min(NEIGHBOURS, max(2, count))


def centres_of(
    points: Tensor,
    rows: Tensor,
    sizes: Sequence[int],
    counts: Sequence[int],
    unit: Tensor,
    neighbours: Callable[[int], int] = as_many_as_clusters,
) -> Tensor:
    """Cluster groups of tokens by :func:`tokenprune.cluster.dpc_knn`, each into its count.

    Args:
        points: ``(M, D)`` fp32 or fp64 on a device with fp64.
        rows: ``(R,)`` int64, the points of the groups, one group after the other.
        sizes: how many of them each group has, R in all.
        counts: how many clusters each is to have; 0 drops a group, its size or more leaves it as it is.
        unit: ``(1,)`` fp64, the squared distance that counts as 1.
        neighbours: from a count of clusters, how many neighbours density is read from.

    Returns:
        ``(R,)`` int64, for each of the rows the place among them of its centre, -1 for dropped.
    """
    starts = [0, *itertools.accumulate(sizes)]
    stays = [count > 0 for count, size in zip(counts, sizes) for _ in range(size)]
    itself = torch.arange(len(rows), device=rows.device)
    centres = torch.where(upload(torch.tensor(stays, dtype=torch.bool, device="cpu"), rows.device), itself, -1)
    groups = [group for group, size in enumerate(sizes) if 0 < counts[group] < size]
    for k in sorted({neighbours(counts[group]) for group in groups}):
        mine = [group for group in groups if neighbours(counts[group]) == k]
        for batch in batches([sizes[group] for group in mine], points.shape[1], rows.device):
            called = [mine[place] for place in batch]
            known = torch.tensor([[starts[g], sizes[g], counts[g]] for g in called], device="cpu")
            start, size, count = upload(known, rows.device).unbind(1)
            place = torch.arange(sizes[called[0]], device=rows.device)
            there = start[:, None] + torch.minimum(place, size[:, None] - 1)  # padding repeats a group's last
            padded = size if sizes[called[-1]] < sizes[called[0]] else None
            at = points[rows[there.flatten()]].view(*there.shape, -1)
            found = dpc_knn(
                at, count, unit.expand(len(called)), neighbours=k, distance_scale="raw", sizes=padded
            ).centres
            real = place < size[:, None]
            found = start[:, None] + torch.where(real, found, 0)
            centres = centres.scatter(0, there[real], found[real])
    return centres
