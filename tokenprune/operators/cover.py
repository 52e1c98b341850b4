# SPDX-License-Identifier: Apache-2.0
"""Cover: keep what is least like anything kept, and let each kept token speak for its neighbourhood."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import torch
from torch import Tensor

from tokenprune.about import About
from tokenprune.budget import as_fraction
from tokenprune.operator import check_modalities
from tokenprune.operators.budgeted import Budgeted
from tokenprune.operators.cover_order import Compared, Picked, farthest
from tokenprune.plan import TokenPlan
from tokenprune.points import Points, undisturbed
from tokenprune.tokens import VisualTokens


@dataclass(frozen=True)
class Cover(Budgeted):
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
        outliers: share of the first so many picks, rounded up, that outliers may take, but always four; they wait while
            anything else is not yet covered. A token is an outlier if it is far from the mean in a direction of its own
            (:mod:`tokenprune.operators.outliers`), which nothing was in the features this was tried on. 1.0: the
            definition to the letter, whatever the features.
        modalities: what it is shown: ``"video"``, ``"image"`` or both.

    Raises:
        BudgetError: both or neither of ``keep_ratio`` and ``keep`` given, or a value that is not allowed.
        InvalidValueError: another argument is not allowed; or, by ``plan``, features hold NaN or infinity.
    """

    spread: float = 0.0
    outliers: float = 0.1
    modalities: tuple[str, ...] = ("video",)

    about: ClassVar[About] = About("of this package, after Gonzalez (1985)", "no code", "N K D")
    site: ClassVar[str] = "before_llm"
    mass: ClassVar[str] = "sizes"

    def __post_init__(self) -> None:
        super().__post_init__()
        as_fraction("spread", self.spread, low_open=False)
        as_fraction("outliers", self.outliers, low_open=False)
        object.__setattr__(self, "modalities", check_modalities(self.modalities))

    def plan(self, tokens: VisualTokens) -> TokenPlan:
        """Decide which tokens go on, and which of them each other one is merged into."""
        total, device = len(tokens), tokens.features.device
        kept = self.budget.count(total)
        if kept == total:
            return TokenPlan.identity(total, device)
        with undisturbed(device):
            points = Points(tokens.features)
            spread = math.ceil(as_fraction("spread", self.spread, low_open=False) * kept)
            share = as_fraction("outliers", self.outliers, low_open=False)
            anchors, assign, scores = _decide(points, _frames(tokens), kept, kept - spread, share)
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
        share = as_fraction("outliers", Cover.outliers, low_open=False)
        return farthest(Compared(Points(features)), _frames(tokens), count, share).order.to(features.device)


def _frames(tokens: VisualTokens) -> int:
    return tokens.grid[0] if tokens.is_full_grid else len(tokens)


def _decide(points: Points, frames: int, kept: int, count: int, share: Fraction) -> tuple[Tensor, Tensor, Tensor]:
    """``(kept,)`` anchors, ``(N,)`` places, ``(N,)`` fp64 scores; ``count`` of the anchors are farthest points."""
    compared = Compared(points)
    picked = farthest(compared, frames, count, share) if count else None
    chosen = torch.zeros(0, dtype=torch.int64, device=points.device) if picked is None else picked.order
    anchors = torch.cat([chosen, _spread(points.count, chosen, kept - count)]).sort().values
    assign, scores = compared.distances.nearest(anchors)
    assign[anchors] = torch.arange(kept, device=anchors.device)
    scores = scores.double()
    return anchors, assign, scores if picked is None else _in_order(scores, picked, compared.distances.slack)


def _in_order(scores: Tensor, picked: Picked, slack: float) -> Tensor:
    """``(N,)`` squared distances to the anchors, those of the picks as they were when picked, so that they come first.

    Neither rounding nor an outlier that still waits may stand before the last pick.
    """
    chosen, radii, last = picked.order, picked.radii, picked.radii[-1]
    scores = torch.where(scores <= last + slack, torch.minimum(scores, last), scores)
    scores = torch.where(picked.outliers & (scores >= last), torch.nextafter(last, -last.abs() - 1), scores)
    scores[chosen] = radii
    first = radii == math.inf
    scores[chosen[first]] = -math.inf
    scores[chosen[first]] = torch.nextafter(scores.amax(), scores.new_full((), math.inf))
    return scores


def _spread(total: int, chosen: Tensor, count: int) -> Tensor:
    """The ``count`` tokens of smallest ``frac(0.618 i)`` that are not chosen."""
    place = torch.arange(total, device=chosen.device) * 618 % 1000
    place[chosen] = 1000
    return torch.argsort(place, stable=True)[:count]
