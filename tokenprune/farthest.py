# SPDX-License-Identifier: Apache-2.0
"""Again and again the point farthest from all picked so far (Gonzalez 1985), in many groups at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import torch
from torch import Tensor

from tokenprune import batching
from tokenprune.batching import pieces
from tokenprune.cluster import RESOLUTION, fp32_products_are_rounded

Distances = Callable[[Tensor], Tensor]
"""``(B,)`` indices of points -> ``(B, n)`` how far all points of each of B groups are from its point."""


@dataclass(frozen=True, eq=False)
class Picks:
    """What was picked in B groups of n points.

    Args:
        order: ``(B, steps)`` int64 indices in the order of picking.
        radii: ``(B, steps)`` how far from all earlier ones each was; never rises, but after one that a limit has made
            wait. -inf where a group had run out.
        reach: ``(B, n)`` how far each point is from the nearest pick, -inf for the picks themselves and for padding.
    """

    order: Tensor
    radii: Tensor
    reach: Tensor


@dataclass(frozen=True, eq=False)
class Limit:
    """How many of certain points may be among the first picks, however many there are in all.

    They wait while there is another point that is farther than rounding from all picks.

    Args:
        marked: ``(B, n)`` bool, which points these are.
        share: of the first so many picks, rounded up.
        free: so many may always be.
    """

    marked: Tensor
    share: Fraction
    free: int

    def allowed(self, picks: int) -> int:
        """How many may be among so many picks."""
        return max(self.free, math.ceil(self.share * picks))


def farthest_points(
    distances: Distances,
    reach: Tensor,
    steps: int,
    slack: float,
    first: Tensor | None = None,
    limit: Limit | None = None,
) -> Picks:
    """Pick ``steps`` points in each group; ties go to the lower index. Does not wait for the device.

    Distances that differ by up to ``slack`` are ties; the radius is then the largest of them, so that radii sorted
    (stably) from the largest on give the order of the picks.

    Args:
        distances: from a point of each group to all of it.
        reach: ``(B, n)`` how far each point is from what was picked before; -inf for what may not be picked.
        steps: at least 1.
        slack: at least 0.
        first: ``(B, n)`` what the first pick has most of, where nothing was picked before (default: ``reach``).
        limit: on some of the points.
    """
    order: list[Tensor] = []
    radii: list[Tensor] = []
    taken = torch.zeros(len(reach), 1, dtype=torch.int64, device=reach.device)
    for step in range(steps):
        sought = first if step == 0 and first is not None else reach
        if limit is not None and step >= limit.free:
            others = sought.masked_fill(limit.marked, -math.inf)
            waits = (taken >= limit.allowed(step + 1)) & (others.amax(dim=1, keepdim=True) > slack)
            sought = torch.where(waits, others, sought)
        top = sought.amax(dim=1, keepdim=True)
        pick = (sought >= top - slack).to(torch.uint8).argmax(dim=1)
        reach = torch.minimum(reach, distances(pick)).scatter_(1, pick[:, None], -math.inf)
        if limit is not None:
            taken = taken + limit.marked.gather(1, pick[:, None])
        order.append(pick)
        radii.append(top.squeeze(1))
    return Picks(torch.stack(order, dim=1), torch.stack(radii, dim=1), reach)


class SquaredDistances:
    """Squared Euclidean distances within B groups of n points: a table where that is small, else a row at a time.

    Args:
        points: ``(B, n, d)`` fp32 or fp64, near the origin, for what is rounded grows with their length.

    Attributes:
        slack: squared distances that differ by up to this may differ by rounding alone.
    """

    def __init__(self, points: Tensor) -> None:
        rounded = points.dtype == torch.float32 and fp32_products_are_rounded(points.device)
        self._points = points.double() if rounded else points
        self._norms = self._points.square().sum(dim=2)
        self._group = torch.arange(len(points), device=points.device)
        largest = float(self._norms.amax())
        self.slack = largest * (RESOLUTION if points.dtype == torch.float32 else 1e-9)
        groups, n, _ = points.shape
        self._is_small = 2 * groups * n * n * self._points.element_size() <= batching.DISTANCE_BYTES

    def __call__(self, picks: Tensor) -> Tensor:
        if self._is_small:
            return self._table[self._group, picks]
        chosen = self._points[self._group, picks]
        products = torch.bmm(self._points, chosen[:, :, None]).squeeze(2)
        return (self._norms + self._norms[self._group, picks][:, None] - 2 * products).clamp_(min=0)

    def products(self) -> Tensor | None:
        """``(B, n, n)`` of all points with each other, where there is a table of their distances."""
        if not self._is_small:
            return None
        return (self._norms[:, :, None] + self._norms[:, None, :] - self._table) / 2

    def nearest(self, anchors: Tensor) -> tuple[Tensor, Tensor]:
        """Of one group: for each point the place of the nearest of ``anchors`` ``(K,)``, and its squared distance."""
        points, chosen = self._points[0], self._points[0, anchors].T.contiguous()
        places: list[Tensor] = []
        distances: list[Tensor] = []
        for piece in pieces(len(points), 3 * len(anchors), points.device):
            squared = torch.addmm(self._norms[0, anchors], points[piece], chosen, alpha=-2)
            least = squared.amin(dim=1, keepdim=True)
            places.append((squared <= least + self.slack).view(torch.uint8).argmax(dim=1))
            distances.append((least.squeeze(1) + self._norms[0, piece]).clamp(min=0))
        return torch.cat(places), torch.cat(distances)

    @cached_property
    def _table(self) -> Tensor:
        """``(B, n, n)`` all distances."""
        products = torch.bmm(self._points, self._points.transpose(1, 2))
        products.mul_(-2).add_(self._norms[:, :, None]).add_(self._norms[:, None, :])
        return products.clamp_(min=0)
