# SPDX-License-Identifier: Apache-2.0
"""DPC-KNN: density peaks clustering with a k-nearest-neighbour density, for many groups of points at once.

Method: Du, Ding and Jia, "Study on density peaks clustering based on k-nearest neighbors" (2016), in the form used
by PruneVid (arXiv 2412.16117): a fixed number of centres, every point to its nearest centre. Deterministic: no noise
breaks ties, the lower index does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

import torch
from torch import Tensor

from tokenprune import batching
from tokenprune.batching import BYTES_A_PAIR
from tokenprune.errors import InvalidValueError
from tokenprune.messages import not_one_of

DistanceScale = Literal["raw", "relative"]
DISTANCE_SCALES: tuple[str, ...] = get_args(DistanceScale)

RESOLUTION = 4e-6  # of |a|^2 + |b|^2: in fp32 a squared distance up to this is rounding, and counts as none
_SMALLEST_UNIT = 1e-300  # keeps a division defined when a squared unit underflows


@dataclass(frozen=True, eq=False)
class Clusters:
    """Clusters of G groups of n points.

    Args:
        centres: ``(G, n)`` int64, for each point the index, in its group, of the centre it belongs to.
        ranks: ``(G, n)`` int64, the place of each point in the order of falling score; the first are the centres.
    """

    centres: Tensor
    ranks: Tensor


def portion(count: int, ratio: float) -> int:
    """``floor(count * ratio)``, at least 1, with the ratio read as the decimal that was written."""
    return max(1, math.floor(Fraction(str(ratio)) * count))


def dpc_knn(
    points: Tensor,
    counts: Tensor,
    unit: Tensor,
    *,
    neighbours: int,
    distance_scale: DistanceScale = "relative",
    sizes: Tensor | None = None,
) -> Clusters:
    """Cluster each group of points into its count of clusters.

    With ``d`` the distance of two points, the density of a point is ``exp(-mean d^2)`` over its ``neighbours``
    nearest points, itself included; its score is the density times the distance to the nearest denser point (for the
    densest: the largest distance of the group). The points of highest score are the centres. Only the order of scores
    matters, so their logarithms are compared, which do not underflow. The host is not waited for.

    Args:
        points: ``(G, n, D)`` fp32 or fp64; of not more groups than :func:`tokenprune.batching.batches` puts together.
        counts: ``(G,)`` int64, the number of clusters of each group, in 1..its size.
        unit: ``(G,)`` fp64, the squared distance that counts as 1 for ``distance_scale="raw"``.
        neighbours: at least 1; more than the group's size count as its size.
        distance_scale: ``"raw"`` measures in ``unit``; ``"relative"`` in the root mean square of the distances in the
            group, which makes the clusters independent of the features' scale.
        sizes: ``(G,)`` int64, how many of a group's points are its own, in 1..n; the others, at the end, are padding
            (finite, otherwise of no consequence). None: all are.

    Returns:
        The clusters; ties in density and score go to the lower index, a point between centres to the lower one.
        Entries of padding mean nothing.
    """
    require_distance_scale(distance_scale)
    n = points.shape[1]
    table = _DistanceTable(points, None if sizes is None else torch.arange(n, device=points.device) >= sizes[:, None])
    own = n if sizes is None else sizes.double()
    density, unit, farthest = _densities(table, own, unit, neighbours, distance_scale)
    by_density = _ranks(density)
    reach = _joined(
        [
            squared.masked_fill(by_density[:, None, :] >= by_density[:, rows, None], math.inf).amin(dim=2)
            for rows, squared in table.rows()
        ]
    )
    reach = torch.where(by_density == 0, farthest[:, None], reach).double()
    score = density + (reach / unit).sqrt().log()  # log(0) = -inf: a copy of a denser point comes last
    ranks = _ranks(score)

    is_no_centre = ranks >= counts[:, None]
    index = torch.arange(n, dtype=torch.int32, device=points.device)
    owners: list[Tensor] = []
    for _, squared in table.rows():
        to_centre = squared.masked_fill(is_no_centre[:, None, :], math.inf)
        closest = to_centre == to_centre.amin(dim=2, keepdim=True)
        owners.append(torch.where(closest, index, n - 1).amin(dim=2))  # an index even where NaN is closest to nothing
    return Clusters(torch.where(is_no_centre, _joined(owners), index).long(), ranks)


def _densities(
    table: _DistanceTable, own: Tensor | int, unit: Tensor, neighbours: int, distance_scale: DistanceScale
) -> tuple[Tensor, Tensor, Tensor]:
    """Logarithms of the densities ``(G, n)``, the squared unit of distance ``(G, 1)``, the farthest pair ``(G,)``."""
    k = min(neighbours, table.length)
    nearest: list[Tensor] = []
    sums: list[Tensor] = []
    largest: list[Tensor] = []
    for rows, squared in table.rows():
        # Sums come before divisions and in fp64, so that equal densities are equal in every bit.
        closest = squared.topk(k, dim=2, largest=False, sorted=True).values
        nearest.append(table.finite(closest).sum(dim=2, dtype=torch.float64))
        inside = table.inside(rows, squared)
        sums.append(inside.sum(dim=2, dtype=torch.float64))
        largest.append(inside.amax(dim=2))
    total, farthest = _joined(sums).sum(dim=1), _joined(largest).amax(dim=1)
    if distance_scale == "relative":
        pairs = own * (own - 1)
        pairs = pairs.clamp(min=1) if isinstance(pairs, Tensor) else max(1, pairs)
        unit = torch.where(total > 0, total / pairs, unit)
    unit = unit.clamp(min=_SMALLEST_UNIT)[:, None]
    counted = own.clamp(max=k)[:, None] if isinstance(own, Tensor) else k
    density = -_joined(nearest) / (counted * unit)
    if table.padding is not None:  # padding is never denser than a point, and so never a centre
        density = density.masked_fill(table.padding, -math.inf)
    return density, unit, farthest


def _ranks(values: Tensor) -> Tensor:
    """Place of each value ``(G, n)`` in falling order; the lower index comes first among equals."""
    order = torch.sort(values, dim=1, descending=True, stable=True).indices
    places = torch.arange(values.shape[1], device=values.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


class _DistanceTable:
    """Squared distances of ``points`` (G, n, D) to each other, in blocks of rows that fit ``DISTANCE_BYTES``.

    A table that fits is computed once; a larger one again at each pass. Distances to padding, marked in ``padding``
    (G, n), are infinite.
    """

    def __init__(self, points: Tensor, padding: Tensor | None) -> None:
        groups, self.length, _ = points.shape
        self.padding = padding
        in_fp64 = points.dtype == torch.float32 and fp32_products_are_rounded(points.device)
        self._dtype = points.dtype
        self._points = points.double() if in_fp64 else points
        self._norms = points.square().sum(dim=2)
        self._step = max(1, min(self.length, batching.DISTANCE_BYTES // (groups * self.length * BYTES_A_PAIR)))
        self._whole: Tensor | None = None

    def rows(self) -> Iterator[tuple[slice, Tensor]]:
        """The rows of the table: which, and their squared distances ``(G, rows, n)``; not to be written to."""
        if self._step == self.length:
            if self._whole is None:
                self._whole = self._squared(slice(0, self.length))
            yield slice(0, self.length), self._whole
            return
        for start in range(0, self.length, self._step):
            rows = slice(start, min(self.length, start + self._step))
            yield rows, self._squared(rows)

    def finite(self, squared: Tensor) -> Tensor:
        """The distances with 0 for those to padding."""
        return squared if self.padding is None else squared.masked_fill(squared == math.inf, 0)

    def inside(self, rows: slice, squared: Tensor) -> Tensor:
        """The distances ``(G, rows, n)`` with 0 for those from and to padding."""
        if self.padding is None:
            return squared
        return squared.masked_fill(self.padding[:, rows, None] | self.padding[:, None, :], 0)

    def _squared(self, rows: slice) -> Tensor:
        both = self._norms[:, rows, None] + self._norms[:, None, :]
        products = torch.bmm(self._points[:, rows], self._points.transpose(1, 2)).to(self._dtype)
        if self._step == self.length:
            # Two points that are nearest to each other are equally dense: rounding must not tell them apart.
            products = torch.minimum(products, products.transpose(1, 2))
        squared = products.mul_(-2).add_(both)
        squared.masked_fill_(squared <= both.mul_(RESOLUTION), 0)
        return squared if self.padding is None else squared.masked_fill_(self.padding[:, None, :], math.inf)


def fp32_products_are_rounded(device: torch.device) -> bool:
    """Whether the user lets fp32 matrix products run in TF32 or bf16, which would make distances noise.

    The setting is global and not ours to change, so such products are computed in fp64 instead.
    """
    library = torch.backends.cuda.matmul if device.type == "cuda" else torch.backends.mkldnn
    precision = getattr(getattr(library, "matmul", library), "fp32_precision", None)
    if precision is None:  # torch before 2.9 has one setting for all
        return torch.get_float32_matmul_precision() != "highest"
    return precision not in ("ieee", "none")


def require_distance_scale(value: str) -> None:
    """Raise unless ``value`` is one of ``DISTANCE_SCALES``."""
    if value not in DISTANCE_SCALES:
        raise InvalidValueError(not_one_of("distance_scale", DISTANCE_SCALES, value))
