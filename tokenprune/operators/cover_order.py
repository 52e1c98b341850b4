# SPDX-License-Identifier: Apache-2.0
"""The order in which Cover picks: farthest points, of which outliers may take a limited share."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import torch
from torch import Tensor

from tokenprune.batching import pieces
from tokenprune.cluster import fp32_products_are_rounded
from tokenprune.farthest import Limit, SquaredDistances, farthest_points
from tokenprune.operators.outliers import outliers
from tokenprune.points import Points

BLOCK = 1024
"""Up to so many tokens the definition is followed to the letter; above, blocks hold about so many."""
SIDE = 128
"""Components of what larger videos are projected to."""
NEAR = 64
"""So many of these are enough for distances; outliers are told by all."""
FOLDED = 512
"""And of what is left of many components before that."""
FEWEST = 16
"""Picks that a block has at least."""
FREE = 4
"""So many outliers are always let in."""
AMONG = 256
"""Outliers are told among about so many tokens, or twice as many as there are components."""
PRIME = 2**19 - 1


@dataclass(frozen=True, eq=False)
class Picked:
    """The first picks of an order.

    Args:
        order: ``(count,)`` int64 tokens.
        radii: ``(count,)`` fp64 squared distances when picked, the first of a block infinite; never rises: what has
            waited has that of the pick before it.
        outliers: ``(N,)`` bool.
    """

    order: Tensor
    radii: Tensor
    outliers: Tensor


@dataclass(frozen=True, eq=False)
class Blocks:
    """Tokens in blocks of whole frames, padded to the largest.

    Args:
        places: ``(B, n)`` int64, which tokens; in padding some other.
        padding: ``(B, n)`` bool.
        is_even: whether there is no padding.
    """

    places: Tensor
    padding: Tensor
    is_even: bool

    @classmethod
    def of(cls, total: int, frames: int, count: int, device: torch.device) -> Blocks:
        """``count`` blocks, at most as many as there are frames."""
        edges = [frames * block // count * (total // frames) for block in range(count + 1)]
        sizes = {stop - start for start, stop in itertools.pairwise(edges)}
        longest = max(sizes)
        places = torch.arange(longest, device=device) + torch.tensor(edges[:-1], device=device)[:, None]
        padding = places >= torch.tensor(edges[1:], device=device)[:, None]
        return cls(places.clamp(max=total - 1), padding, len(sizes) == 1)

    def take(self, x: Tensor) -> Tensor:
        """``(N, ...) -> (B, n, ...)``, zero in padding."""
        if self.is_even:
            return x.reshape(*self.padding.shape, *x.shape[1:])
        taken = x[self.places]
        return taken.masked_fill(self.padding.view(*self.padding.shape, *[1] * (x.ndim - 1)), 0)


class Compared:
    """What the tokens of a video are compared by.

    Attributes:
        all: ``(N, d)`` features without the mean, projected where there are many tokens.
        near: ``(N, d)`` what distances are taken of.
        distances: over all of them.
    """

    def __init__(self, points: Points) -> None:
        few = points.count <= BLOCK
        found = points.read(slice(None)).double() if few else _projected(points)
        self.all = found - found.mean(dim=0)
        is_projected = not few and points.dim > SIDE
        self.near = self.all[:, :NEAR] * math.sqrt(SIDE / NEAR) if is_projected else self.all
        self.distances = SquaredDistances(self.near[None])

    def outliers(self, frames: int) -> Tensor:
        """``(N,)`` bool, each told among the tokens of some frames."""
        total, dim = self.all.shape
        blocks = Blocks.of(total, frames, max(1, min(frames, total // max(AMONG, 2 * dim))), self.all.device)
        alone = len(blocks.places) == 1
        products = self.distances.products() if alone and total <= dim and self.near is self.all else None
        found = outliers(blocks.take(self.all), None if blocks.is_even else ~blocks.padding, products)
        marked = torch.zeros(total + 1, dtype=torch.bool, device=found.device)
        marked[blocks.places.masked_fill(blocks.padding, total).flatten()] = found.flatten()
        return marked[:total]


def farthest(compared: Compared, frames: int, count: int, share: Fraction) -> Picked:
    """The first ``count`` picks, of which outliers have at most ``share``. Waits for the device."""
    x, whole = compared.near, compared.distances
    total = len(x)
    marked = compared.outliers(frames) if share < 1 else torch.zeros(total, dtype=torch.bool, device=x.device)
    number = 1 if total <= BLOCK else max(1, min(-(-total // BLOCK), count // FEWEST, frames))
    blocks = Blocks.of(total, frames, number, x.device)
    groups = x[None] if number == 1 else blocks.take(x)
    real = (~blocks.padding).sum(dim=1)
    means = groups.sum(dim=1) / real[:, None] if number > 1 else torch.zeros_like(groups[:, 0])
    start = (groups - means[:, None]).square().sum(dim=2).masked_fill(blocks.padding, -math.inf)
    distances = whole if number == 1 else SquaredDistances(groups)
    reach = torch.full_like(start, math.inf).masked_fill(blocks.padding, -math.inf)
    steps = count if number == 1 else min(start.shape[1], 2 * -(-count // number))
    limit = Limit(blocks.take(marked), share, FREE) if bool(marked.any()) else None
    picks = farthest_points(distances, reach, steps, distances.slack, start, limit)
    radii = picks.radii.double()
    if number == 1:
        radii[0, 0] = math.inf
        return Picked(picks.order[0], radii[0].cummin(0).values, marked)
    radii = torch.where(radii.abs() <= distances.slack, 0.0, radii)
    radii[:, 0] = math.inf
    radii = radii.cummin(1).values.flatten()
    best = torch.argsort(radii, descending=True, stable=True)[:count]
    return Picked(blocks.places.gather(1, picks.order).flatten()[best], radii[best], marked)


def _projected(points: Points) -> Tensor:
    """``(N, d)`` features, multiplied by a fixed table of signs where they have more than :data:`SIDE` components.

    Of many components those that stand :data:`FOLDED` apart are added up first, each with a sign: one pass over them in
    place of most of the products.
    """
    if points.dim <= SIDE:
        return points.read(slice(None))
    device = points.device
    exact = torch.float64 if fp32_products_are_rounded(device) else torch.float32
    width = points.dim if points.dim < 2 * FOLDED else FOLDED
    signs = _signs(points.dim + width * SIDE)
    folding = signs[: points.dim].to(device)
    table = signs[points.dim :].view(width, SIDE).to(device, exact) / math.sqrt(SIDE)
    parts = pieces(points.count, points.dim, device)
    return torch.cat([_folded(points.read(piece), folding, width).to(exact) @ table for piece in parts])


def _folded(x: Tensor, signs: Tensor, width: int) -> Tensor:
    """``(n, width)`` signed sums of the components of ``(n, D)`` that stand ``width`` apart."""
    if x.shape[1] == width:
        return x
    total = x[:, :width] * signs[:width]
    for start in range(width, x.shape[1], width):
        more = x[:, start : start + width]
        total[:, : more.shape[1]].addcmul_(more, signs[start : start + width])
    return total


@lru_cache(maxsize=4)
def _signs(count: int) -> Tensor:
    """``(count,)`` the Legendre symbols of 1, 2, 3, ... modulo a prime: whether a number is a square.

    A table that no caller may change, kept because making it takes a sixth of the time of a plan over 2304 tokens.
    """
    numbers = torch.arange(1, PRIME, device="cpu")
    symbols = torch.full((PRIME,), -1.0, device="cpu")
    symbols[numbers * numbers % PRIME] = 1.0
    return symbols[torch.arange(1, count + 1, device="cpu") % PRIME]
