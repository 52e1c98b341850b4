# SPDX-License-Identifier: Apache-2.0
"""Which tokens are far from the mean in a direction that no other token shares: noise, as far as the others can tell.

What shows something differs from the mean along directions along which others differ too, however rare it is. With
``y_i`` a token without the mean of all, ``C_i`` the sum of ``y_j y_j^T`` over the others about their own mean, and
``e = 1e-4 sum_j |y_j|^2``, what the others leave of its direction ``u`` is ``e u^T (C_i + e)^-1 u``: near 0 where they
vary along it by more than ``e``, 1 where they do not at all. That much must be left of an outlier, and twice as much as
of the median token, for where all are noise none is an outlier. This package's own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tokenprune.cluster import fp32_products_are_rounded

RESOLVED = 1e-4
"""Share of all energy that others must have along a direction, so that it counts as theirs."""
UNSHARED = 0.4
"""More than so much of an outlier's direction is its own."""
TIMES = 2
"""And more than so many times what is left of the median token."""


def outliers(points: Tensor, real: Tensor | None = None, products: Tensor | None = None) -> Tensor:
    """``(B, n)`` bool: the outliers of each of B groups of n points.

    Args:
        points: ``(B, n, d)``.
        real: ``(B, n)`` bool, False for padding; None: no group is padded.
        products: ``(B, n, n)`` fp64 of the points with each other, where they are known, have no mean and no padding.
    """
    groups, count, dim = points.shape
    if products is not None:
        squares = products.diagonal(dim1=1, dim2=2)
        real = torch.ones(groups, count, dtype=torch.bool, device=points.device)
    else:
        points, real = _without_mean(points, real)
        squares = torch.linalg.vector_norm(points, dim=2).double().square()
        products = torch.bmm(points, points.mT) if count <= dim else torch.bmm(points.mT, points)
    counts = real.sum(dim=1, keepdim=True)
    energy = squares.sum(dim=1, keepdim=True)
    resolved = (RESOLVED * energy).clamp(min=torch.finfo(torch.float64).tiny)
    identity = torch.eye(products.shape[1], dtype=torch.float64, device=points.device)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(products.double() + resolved[:, :, None] * identity))
    if products.shape[1] == count <= dim:  # y^T (C + e)^-1 y of each point, C the sum of y y^T over its whole group
        with_it = 1 - resolved * inverse.diagonal(dim1=1, dim2=2)
    else:
        with_it = (torch.bmm(points, inverse.to(points.dtype)) * points).sum(dim=2).double()
    others = counts.clamp(min=2) / (counts.clamp(min=2) - 1)  # the mean of the others lies on the other side
    left = resolved * with_it / ((1 - others * with_it) * squares)  # Sherman and Morrison: without it
    ranked = left.masked_fill(~real | left.isnan(), torch.inf).sort(dim=1).values
    least = (TIMES * ranked.gather(1, (counts - 1) // 2)).clamp(min=UNSHARED)
    return real & (left > least) & (squares > energy / counts)


def _without_mean(points: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor]:
    """The points about their groups' means, zero in padding, where fp32 is exact enough in fp32; and which are real."""
    if points.dtype != torch.float32 or fp32_products_are_rounded(points.device):
        points = points.double()
    if real is None:
        return points - points.mean(dim=1, keepdim=True), points.new_ones(points.shape[:2], dtype=torch.bool)
    points = points.masked_fill(~real[:, :, None], 0)
    points = points - points.sum(dim=1, keepdim=True) / real.sum(dim=1)[:, None, None]
    return points.masked_fill_(~real[:, :, None], 0), real
