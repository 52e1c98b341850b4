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

from tokenprune.errors import InvalidValueError

DistanceScale = Literal["raw", "relative"]
DISTANCE_SCALES: tuple[str, ...] = get_args(DistanceScale)

DISTANCE_BYTES = 256 * 2**20  # most that distances, and what is computed from them, take up at any moment
POINT_BYTES = 64 * 2**20  # most that fp32 copies of points take up, if one group is not already more
RESOLUTION = 4e-6  # of |a|^2 + |b|^2: in fp32 a squared distance up to this is rounding, and counts as none
_BYTES_A_PAIR = 24  # a distance in fp64, its masked copy, and indices
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


def groups_at_once(points: int, dim: int) -> int:
    """How many groups of ``points`` points of ``dim`` components may be clustered in one call; at least 1."""
    by_distance = DISTANCE_BYTES // (points * points * _BYTES_A_PAIR)
    by_copy = POINT_BYTES // (points * max(dim, 1) * 4)
    return max(1, min(by_distance, by_copy))


def dpc_knn(
    points: Tensor, counts: Tensor, unit: Tensor, *, neighbours: int, distance_scale: DistanceScale = "relative"
) -> Clusters:
    """Cluster each group of points into its count of clusters.

    With ``d`` the distance of two points, the density of a point is ``exp(-mean d^2)`` over its ``neighbours``
    nearest points, itself included; its score is the density times the distance to the nearest denser point (for the
    densest: the largest distance of the group). The points of highest score are the centres. Only the order of scores
    matters, so their logarithms are compared, which do not underflow.

    Args:
        points: ``(G, n, D)`` fp32 or fp64; not more groups than :func:`groups_at_once` allows.
        counts: ``(G,)`` int64, the number of clusters of each group, in 1..n.
        unit: ``(G,)`` fp64, the squared distance that counts as 1 for ``distance_scale="raw"``.
        neighbours: at least 1; more than n count as n.
        distance_scale: ``"raw"`` measures in ``unit``; ``"relative"`` in the root mean square of the distances in the
            group, which makes the clusters independent of the features' scale.

    Returns:
        The clusters; ties in density and score go to the lower index, a point between centres to the lower one.
    """
    require_distance_scale(distance_scale)
    groups, n, _ = points.shape
    table = _DistanceTable(points)
    nearest: list[Tensor] = []
    total = torch.zeros(groups, dtype=torch.float64, device=points.device)
    farthest = torch.zeros(groups, dtype=points.dtype, device=points.device)
    for _, squared in table.rows():
        # Sums come before divisions and in fp64, so that equal densities are equal in every bit.
        closest = squared.topk(min(neighbours, n), dim=2, largest=False, sorted=True).values
        nearest.append(closest.sum(dim=2, dtype=torch.float64))
        total += squared.sum(dim=2, dtype=torch.float64).sum(dim=1)
        farthest = torch.maximum(farthest, squared.amax(dim=(1, 2)))
    if distance_scale == "relative":
        unit = torch.where(total > 0, total / max(1, n * (n - 1)), unit)
    unit = unit.clamp(min=_SMALLEST_UNIT)[:, None]
    density = -torch.cat(nearest, dim=1) / (min(neighbours, n) * unit)

    by_density = _ranks(density)
    reaches: list[Tensor] = []
    for rows, squared in table.rows():
        denser = by_density[:, None, :] < by_density[:, rows, None]
        reaches.append(squared.masked_fill(~denser, math.inf).amin(dim=2))
    reach = torch.cat(reaches, dim=1)
    reach = torch.where(by_density == 0, farthest[:, None], reach).double()
    ranks = _ranks(density + (reach / unit).sqrt().log())  # log(0) = -inf: a copy of a denser point comes last

    is_centre = ranks < counts[:, None]
    index = torch.arange(n, dtype=torch.int32, device=points.device)
    owners: list[Tensor] = []
    for _, squared in table.rows():
        to_centre = squared.masked_fill(~is_centre[:, None, :], math.inf)
        closest = to_centre == to_centre.amin(dim=2, keepdim=True)
        owners.append(torch.where(closest, index, n).amin(dim=2))
    return Clusters(torch.where(is_centre, index, torch.cat(owners, dim=1)).long(), ranks)


def _ranks(values: Tensor) -> Tensor:
    """Place of each value ``(G, n)`` in falling order; the lower index comes first among equals."""
    order = torch.sort(values, dim=1, descending=True, stable=True).indices
    places = torch.arange(values.shape[1], device=values.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, places)


class _DistanceTable:
    """Squared distances of ``points`` (G, n, D) to each other, in blocks of rows that fit ``DISTANCE_BYTES``.

    A table that fits is computed once; a larger one again at each pass.
    """

    def __init__(self, points: Tensor) -> None:
        groups, n, _ = points.shape
        self._points = points
        self._norms = points.square().sum(dim=2)
        self._step = max(1, min(n, DISTANCE_BYTES // (groups * n * _BYTES_A_PAIR)))
        self._whole: Tensor | None = None

    def rows(self) -> Iterator[tuple[slice, Tensor]]:
        """The rows of the table: which, and their squared distances ``(G, rows, n)``; not to be written to."""
        n = self._points.shape[1]
        if self._step == n:
            if self._whole is None:
                self._whole = self._squared(slice(0, n))
            yield slice(0, n), self._whole
            return
        for start in range(0, n, self._step):
            rows = slice(start, min(n, start + self._step))
            yield rows, self._squared(rows)

    def _squared(self, rows: slice) -> Tensor:
        both = self._norms[:, rows, None] + self._norms[:, None, :]
        squared = _products(self._points[:, rows], self._points).mul_(-2).add_(both)
        return squared.masked_fill_(squared <= both.mul_(RESOLUTION), 0)


def _products(a: Tensor, b: Tensor) -> Tensor:
    """Inner products ``(G, m, D), (G, n, D) -> (G, m, n)``, never at less than fp32 precision."""
    if a.dtype == torch.float32 and _fp32_products_are_rounded(a.device):
        return torch.bmm(a.double(), b.double().transpose(1, 2)).float()
    return torch.bmm(a, b.transpose(1, 2))


def _fp32_products_are_rounded(device: torch.device) -> bool:
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
        raise InvalidValueError(f"distance_scale must be one of {', '.join(DISTANCE_SCALES)}, got {value!r}")
