# SPDX-License-Identifier: Apache-2.0
"""PruneVid's first stage loop by loop, as one writes it down from the paper: what STMerge's speed is measured against.

arXiv 2412.16117, section 3.1, with STMerge's decisions: a similarity of at least tau, distances by their root mean
square, at least one cluster, no noise, ties to the lower index, centres as anchors, raster order. Tokens that are
copies of each other up to rounding are not made equal here, as STMerge does.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn import functional as F

from tokenprune.cluster import portion
from tokenprune.segments import refine_labels

MIN_TOKENS = 14
NEIGHBOURS = 7
SLACK = 1e-6


def direct_merge(
    features: Tensor,
    frames: int,
    *,
    tau: float = 0.8,
    cluster_ratio: float = 0.5,
    temporal_segment_ratio: float = 0.25,
) -> tuple[Tensor, Tensor]:
    """Merge the tokens of one video in fp32, a frame at a time.

    Args:
        features: ``(T*L, D)`` in raster order.
        frames: T.
        tau: as in :class:`tokenprune.STMerge`, like the next two.
        cluster_ratio: fraction **kept**.
        temporal_segment_ratio: frame clusters per frame.

    Returns:
        The merged tokens ``(K, D)`` in the dtype of ``features``, and the sorted indices ``(K,)`` of their anchors.
    """
    with torch.no_grad():
        tokens = features.float().view(frames, -1, features.shape[1])
        length = tokens.shape[1]
        merged: list[Tensor] = []
        anchors: list[Tensor] = []
        for start, stop in _segments(tokens.mean(dim=1), temporal_segment_ratio):
            still = _similarity(tokens[start:stop]) >= tau - SLACK
            static, dynamic = still.nonzero().squeeze(1), (~still).nonzero().squeeze(1)
            blocks = [(start, static, tokens[start:stop, static].mean(dim=0))]
            blocks += [(frame, dynamic, tokens[frame, dynamic]) for frame in range(start, stop)]
            for frame, positions, points in blocks:
                values, centres = _merge_block(points, cluster_ratio)
                merged.append(values)
                anchors.append(frame * length + positions[centres])
        found, order = torch.cat(anchors).sort()
        return torch.cat(merged)[order].to(features.dtype), found


def _segments(frame_means: Tensor, ratio: float) -> list[tuple[int, int]]:
    total = len(frame_means)
    clusters = portion(total, ratio)
    if clusters >= total:
        return [(frame, frame + 1) for frame in range(total)]
    _, labels = _dpc_knn(frame_means, clusters)
    runs = [len(list(run)) for _, run in itertools.groupby(refine_labels(labels.tolist()))]
    bounds = [0, *itertools.accumulate(runs)]
    return list(itertools.pairwise(bounds))


def _similarity(segment: Tensor) -> Tensor:
    """``(L,)`` mean cosine over the pairs of W frames ``(W, L, D)``; of one frame -inf."""
    width = len(segment)
    if width == 1:
        return torch.full(segment.shape[1:2], -torch.inf, device=segment.device)
    unit = F.normalize(segment, dim=-1).transpose(0, 1)
    cosines = unit @ unit.transpose(1, 2)
    return (cosines.sum(dim=(1, 2)) - width) / (width * (width - 1))


def _merge_block(points: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    """Cluster means ``(k, D)`` of ``(n, D)`` points, and the indices of the centres ``(k,)``."""
    if len(points) <= MIN_TOKENS:
        return points, torch.arange(len(points), device=points.device)
    centres, labels = _dpc_knn(points, portion(len(points), ratio))
    members = F.one_hot(labels, len(centres)).to(points.dtype)
    return members.T @ points / members.sum(dim=0)[:, None], centres


def _dpc_knn(points: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Sorted indices of the centres ``(k,)``, and for each point ``(n,)`` the place of its centre among them."""
    count = len(points)
    distance = torch.cdist(points, points).fill_diagonal_(0)
    distance = distance / (distance.square().sum() / (count * (count - 1))).sqrt()
    nearest = distance.topk(min(NEIGHBOURS, count), largest=False).values
    density = (-nearest.square().mean(dim=1)).exp()

    index = torch.arange(count, device=points.device)
    denser = (density[None] > density[:, None]) | ((density[None] == density[:, None]) & (index[None] < index[:, None]))
    reach = distance.masked_fill(~denser, torch.inf).amin(dim=1)
    reach = torch.where(denser.any(dim=1), reach, distance.max())
    centres = (density * reach).argsort(descending=True, stable=True)[:clusters].sort().values

    to_centre = distance[:, centres]
    place = torch.arange(clusters, device=points.device)
    labels = torch.where(to_centre == to_centre.amin(dim=1, keepdim=True), place, clusters).amin(dim=1)
    labels[centres] = place
    return centres, labels
