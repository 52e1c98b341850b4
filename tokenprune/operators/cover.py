# SPDX-License-Identifier: Apache-2.0
"""Cover: keep what is least like anything kept, and let each kept token speak for its neighbourhood."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tokenprune.about import About
from tokenprune.batching import pieces
from tokenprune.budget import Budget, as_fraction
from tokenprune.cluster import fp32_products_are_rounded
from tokenprune.farthest import Picks, SquaredDistances, farthest_points
from tokenprune.operator import check_modalities
from tokenprune.plan import TokenPlan
from tokenprune.points import Points, undisturbed
from tokenprune.tokens import VisualTokens

BLOCK = 1024
"""Up to so many tokens the definition is followed to the letter; above, blocks hold about so many."""
SIDE = 128
"""Components of what larger videos are projected to."""
FEWEST = 16
"""Picks that a block has at least."""
PRIME = 2**19 - 1


@dataclass(frozen=True)
class Cover:
    """Keep farthest points, merge every other token into the nearest of them, and count how many each stands for.

    Defined for this package; the picks are those of Gonzalez (1985), whose covering radius is at most twice the best
    possible. With ``K`` the budget and ``|.|`` the Euclidean distance of features:

    * ``a_1 = argmax_i |x_i - mean(x)|``, then ``a_k = argmax_i min_{j<k} |x_i - x_{a_j}|``, ties to the lower index;
    * every token goes to the nearest anchor, ties to the lower index; an anchor becomes the plain mean of its own;
    * in attention each counts for as many tokens as it stands for (``mass = "sizes"``, unless the pipeline says no).

    A smaller budget keeps a prefix of what a larger one picks. ``plan.scores`` holds the squared distance at which a
    token was picked (of the first: more than all others), of the rest that to its anchor: sorted from the largest on,
    it gives the order of the picks. More than 1024 tokens are compared after a projection by a fixed table of signs,
    and picked in blocks of frames at once, twice as many as needed; the budget's worth of largest distance stay, and
    what is then nearest is found over the whole video. Small budgets have fewer and larger blocks.

    >>> tokens = VisualTokens(torch.tensor([[0.0], [1.0], [9.0], [10.0]]), grid=(4, 1, 1))
    >>> Cover(keep=2).plan(tokens).anchors, Cover(keep=2).plan(tokens).assign
    (tensor([0, 3]), tensor([0, 0, 1, 1]))

    Args:
        keep_ratio: fraction of the tokens **kept**, in (0, 1].
        keep: exact number of tokens kept, instead of ``keep_ratio``.
        spread: share of the budget (rounded up) that goes to evenly spread tokens instead, picked after the others:
            those of smallest ``frac(0.618 i)``; 0.5 where attention cannot carry the mass.
        modalities: what it is shown: ``"video"``, ``"image"`` or both.

    Raises:
        BudgetError: both or neither of ``keep_ratio`` and ``keep`` given, or a value that is not allowed.
        InvalidValueError: another argument is not allowed; or, by ``plan``, features hold NaN or infinity.
    """

    keep_ratio: float | None = None
    keep: int | None = None
    spread: float = 0.0
    modalities: tuple[str, ...] = ("video",)

    about: ClassVar[About] = About("of this package, after Gonzalez (1985)", "no code", "N K D")
    site: ClassVar[str] = "before_llm"
    needs: ClassVar[tuple[str, ...]] = ()
    mass: ClassVar[str] = "sizes"

    def __post_init__(self) -> None:
        _ = self.budget
        as_fraction("spread", self.spread, low_open=False)
        object.__setattr__(self, "modalities", check_modalities(self.modalities))

    @property
    def budget(self) -> Budget:
        """How many tokens stay."""
        return Budget(self.keep_ratio, self.keep)

    def plan(self, tokens: VisualTokens) -> TokenPlan:
        """Decide which tokens go on, and which of them each other one is merged into."""
        total, device = len(tokens), tokens.features.device
        kept = self.budget.count(total)
        if kept == total:
            return TokenPlan.identity(total, device)
        with undisturbed(device):
            points = Points(tokens.features)
            frames = tokens.grid[0] if tokens.is_full_grid else total
            spread = math.ceil(as_fraction("spread", self.spread, low_open=False) * kept)
            anchors, assign, scores = _decide(points, frames, kept, kept - spread)
            scores = scores / points.factor.double().square()
        if device.type != points.device.type:  # a device without fp64
            scores = scores.float()
        return TokenPlan(anchors.to(device), assign.to(device), scores=scores.to(device))


def first_picks(tokens: VisualTokens, features: Tensor, count: int) -> Tensor:
    """``(count,)`` int64: which of the tokens :class:`Cover` picks first, in its order, by these ``(N, D)`` features.

    Raises:
        InvalidValueError: features hold NaN or infinity (this waits for the device).
    """
    if count == 0:
        return torch.zeros(0, dtype=torch.int64, device=features.device)
    with undisturbed(features.device):
        compared = _compared(Points(features))
        frames = tokens.grid[0] if tokens.is_full_grid else len(tokens)
        return _farthest(compared, SquaredDistances(compared[None]), frames, count)[0].to(features.device)


def _decide(points: Points, frames: int, kept: int, farthest: int) -> tuple[Tensor, Tensor, Tensor]:
    """``(kept,)`` anchors, ``(N,)`` places, ``(N,)`` fp64 scores; ``farthest`` of the anchors are farthest points."""
    compared = _compared(points)
    whole = SquaredDistances(compared[None])
    chosen, radii = _farthest(compared, whole, frames, farthest) if farthest else _nothing(points)
    spread = _spread(points.count, chosen, kept - farthest)
    anchors = torch.cat([chosen, spread]).sort().values
    assign, scores = whole.nearest(anchors)
    assign[anchors] = torch.arange(kept, device=anchors.device)
    scores = scores.double()
    if farthest:  # no rounding may put the others before the last pick
        scores = torch.where(scores <= radii[-1] + whole.slack, torch.minimum(scores, radii[-1]), scores)
        scores[chosen] = radii
        first = radii == math.inf
        scores[chosen[first]] = -math.inf
        scores[chosen[first]] = torch.nextafter(scores.amax(), scores.new_full((), math.inf))
    return anchors, assign, scores


def _compared(points: Points) -> Tensor:
    """``(N, d)`` what distances are taken of."""
    compared = points.read(slice(None)).double() if points.count <= BLOCK else _projected(points)
    return compared - compared.mean(dim=0)


def _farthest(compared: Tensor, whole: SquaredDistances, frames: int, count: int) -> tuple[Tensor, Tensor]:
    """``(count,)`` picks and their squared distances when picked, the first of a block infinite."""
    total, device = len(compared), compared.device
    blocks = 1 if total <= BLOCK else max(1, min(-(-total // BLOCK), count // FEWEST, frames))
    if blocks == 1:
        start = compared.square().sum(dim=1)[None]
        picks = farthest_points(whole, torch.full_like(start, math.inf), count, whole.slack, start)
        radii = picks.radii[0].double()
        radii[0] = math.inf
        return picks.order[0], radii
    edges = [frames * block // blocks * (total // frames) for block in range(blocks + 1)]
    sizes = [stop - start for start, stop in itertools.pairwise(edges)]
    places = torch.arange(max(sizes), device=device) + torch.tensor(edges[:-1], device=device)[:, None]
    padding = places >= torch.tensor(edges[1:], device=device)[:, None]
    groups = compared[places.clamp(max=total - 1)].masked_fill(padding[:, :, None], 0)
    means = groups.sum(dim=1) / torch.tensor(sizes, device=device)[:, None]
    start = (groups - means[:, None]).square().sum(dim=2).masked_fill(padding, -math.inf)
    steps = min(max(sizes), 2 * -(-count // blocks))
    distances = SquaredDistances(groups)
    reach = torch.full_like(start, math.inf).masked_fill(padding, -math.inf)
    picks: Picks = farthest_points(distances, reach, steps, distances.slack, start)
    radii = picks.radii.double()
    radii = torch.where(radii.abs() <= distances.slack, 0.0, radii)
    radii[:, 0] = math.inf
    order = places.gather(1, picks.order).flatten()
    best = torch.argsort(radii.flatten(), descending=True, stable=True)[:count]
    return order[best], radii.flatten()[best]


def _nothing(points: Points) -> tuple[Tensor, Tensor]:
    empty = torch.zeros(0, device=points.device)
    return empty.long(), empty.double()


def _spread(total: int, chosen: Tensor, count: int) -> Tensor:
    """The ``count`` tokens of smallest ``frac(0.618 i)`` that are not chosen."""
    place = torch.arange(total, device=chosen.device) * 618 % 1000
    place[chosen] = 1000
    return torch.argsort(place, stable=True)[:count]


def _projected(points: Points) -> Tensor:
    """``(N, d)`` features, multiplied by a fixed table of signs where they have more than :data:`SIDE` components.

    The signs are the Legendre symbols of 1, 2, 3, ... modulo a prime, row by row: whether a number is a square.
    """
    if points.dim <= SIDE:
        return points.read(slice(None))
    numbers = torch.arange(1, PRIME, device="cpu")
    symbols = torch.full((PRIME,), -1.0, device="cpu")
    symbols[numbers * numbers % PRIME] = 1.0
    wanted = torch.arange(1, points.dim * SIDE + 1, device="cpu") % PRIME
    exact = torch.float64 if fp32_products_are_rounded(points.device) else torch.float32
    table = symbols[wanted].view(points.dim, SIDE).to(points.device, exact) / math.sqrt(SIDE)
    parts = pieces(points.count, points.dim, points.device)
    return torch.cat([points.read(piece).to(exact) @ table for piece in parts])
