# SPDX-License-Identifier: Apache-2.0
"""GleanVID: budgets of frames by what is new in them, and tokens outside the span of those kept before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from tokenprune.about import About
from tokenprune.device import where_fp64_is
from tokenprune.operator import check_modalities
from tokenprune.operators.budgeted import Budgeted
from tokenprune.operators.frame_shares import kept_with_scores, shares_of
from tokenprune.operators.leading_direction import leading_direction
from tokenprune.operators.novelty import Cells, novelty
from tokenprune.operators.per_frame import require_full_grid
from tokenprune.operators.unit_vectors import cosines_of, deciding, min_max, multipliable, resolved, scaled, units
from tokenprune.plan import TokenPlan
from tokenprune.tokens import VisualTokens

EPSILON = 1e-4
ALPHA_HIGH, ALPHA_LOW = 0.6, 0.2
SHARPNESS = 4.0
NOTHING_NEW = 1e-3  # of a token's length: once the span is all of space, residuals are rounding


@dataclass(frozen=True)
class GleanVID(Budgeted):
    """Give frames tokens by how new they are, and keep in each what stands out and is not spanned by what was kept.

    GleanVID (arXiv 2609.37042), section 3 and appendix B. Features lose their component along the leading direction
    of the centred tokens. A place's novelty ``r[t, p]`` is the residual length of its 2 x 2 cell's mean on those of all
    frames before (ridge 1e-4); with ``R_t = sum_p r[t, p]`` frame t gets ``alpha B/T + (1 - alpha) B R_t / sum R``
    tokens, ``alpha = 0.6 - 0.4 Gini(R)``. In the order of time the tokens with the highest ``m(u) + m(v)`` stay, where
    ``u = softplus(4 (cos(x, cell's mean) - cos(x, frame's mean))) / 4``, ``v`` is the length of the residual on the
    span of all tokens kept in earlier frames, and m scales a frame to [0, 1].

    The authors published no code. Where their text leaves room: shares are rounded by largest remainder, what a full
    frame cannot take goes on to the others; cells at odd edges are partial; a constant has m = 0; a residual of
    at most 1e-3 of the token's length counts as none and adds no direction, for once the span is the whole space, m
    would blow up rounding, and a QR add it; scores are resolved to 1e-6, ties go to the lower index. The leading
    direction is found in a Krylov space of 48 dimensions.

    Published: Qwen3-VL-8B at 32 frames keeps 98.6 and 97.0 % of its scores at 25 and 15 % of the tokens; 160 frames at
    the tokens of 16 gain 12.4 %.

    >>> tokens = VisualTokens(torch.randn(12, 4), grid=(3, 2, 2))
    >>> len(GleanVID(keep=5).plan(tokens).anchors)
    5

    Args:
        keep_ratio: fraction of the tokens **kept**, met exactly (the paper's rho).
        keep: exact number of tokens kept, instead of ``keep_ratio``.
        modalities: which visual tokens are pruned: ``"video"``, ``"image"`` or both, each by itself.

    Raises:
        BudgetError: not exactly one of ``keep_ratio`` and ``keep``, or a value that is not allowed.
        InvalidValueError: ``modalities`` are not known.
    """

    modalities: tuple[str, ...] = field(default=("video",), kw_only=True)

    about: ClassVar[About] = About("arXiv 2609.37042", "no code", "N D min(K, D)")
    needs_full_grid: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "modalities", check_modalities(self.modalities))

    def plan(self, tokens: VisualTokens) -> TokenPlan:
        """The pruning of one video or image. Waits for the device for the frames' novelty, and if directions are many.

        Raises:
            InvalidValueError: tokens were merged or dropped before, or hold NaN or infinity.
        """
        require_full_grid(self, tokens)
        count = self.budget.count(len(tokens))
        if count == len(tokens):
            return TokenPlan.identity(len(tokens), tokens.features.device)
        with deciding(tokens):
            raw = multipliable(scaled(tokens.features))
            cells = Cells.of(tokens.grid, raw.device)
            frames = raw.view(tokens.grid[0], -1, raw.shape[1])
            apart = _without_leading(raw).view_as(frames)
            shares = _shares(novelty(apart, cells, EPSILON), frames.shape[1], count)
            anchors, scores = _glean(frames, apart, cells, shares)
            return kept_with_scores(anchors, scores)


def _without_leading(rows: Tensor) -> Tensor:
    """``rows`` ``(n, D)`` without the component of their differences to the mean along the leading direction."""
    centre = rows.mean(dim=0)
    centred = rows - centre
    direction = leading_direction(centred)
    return centred.sub_((centred @ direction)[:, None] * direction).add_(centre)


def _shares(new: Sequence[float], length: int, count: int) -> list[int]:
    """Tokens of each frame of ``length`` from how new each is."""
    frames, total = len(new), math.fsum(new)
    if total == 0:
        return shares_of([1.0] * frames, [length] * frames, count)
    gini = 2 * math.fsum(i * r for i, r in enumerate(sorted(new), 1)) / (frames * total) - (frames + 1) / frames
    alpha = ALPHA_HIGH - (ALPHA_HIGH - ALPHA_LOW) * gini
    return shares_of([alpha / frames + (1 - alpha) * r / total for r in new], [length] * frames, count)


def _glean(raw: Tensor, apart: Tensor, cells: Cells, shares: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Indices that stay ``(K,)``, and scores ``(T, L)``; frames ``(T, L, D)`` are taken in the order of time."""
    span, reached = apart.new_zeros(sum(shares), apart.shape[2]), 0
    scores, kept = torch.empty(raw.shape[:2], device=raw.device), []
    for t, share in enumerate(shares):
        rest = torch.addmm(apart[t], apart[t] @ span[:reached].T, span[:reached], alpha=-1)
        scores[t] = resolved(min_max(_standing_out(raw[t], cells)) + min_max(_lengths(rest, apart[t])))
        chosen = torch.argsort(scores[t], descending=True, stable=True)[:share].sort().values
        kept.append(chosen + t * raw.shape[1])
        span[reached : reached + share] = _new_directions(rest[chosen], apart[t, chosen])
        reached += share
        if reached > 1.25 * span.shape[1]:  # more rows than there can be directions: the others are zero
            found = span[:reached].any(dim=1).nonzero().squeeze(1)
            span, reached = torch.cat([span[found], span[reached:]]), len(found)
    return torch.cat(kept), scores


def _standing_out(raw: Tensor, cells: Cells) -> Tensor:
    """``u`` ``(L,)``: nearer to the cell's mean than to the frame's."""
    own = units(raw)
    near = cosines_of(own, units(cells.means(raw[None])[0])[cells.home])
    return functional.softplus(SHARPNESS * (near - cosines_of(own, units(raw.mean(dim=0))))) / SHARPNESS


def _lengths(rest: Tensor, whole: Tensor) -> Tensor:
    """Lengths ``(L,)`` of residuals, 0 where one is rounding next to its token."""
    length = torch.linalg.vector_norm(rest, dim=1)
    return torch.where(length > NOTHING_NEW * torch.linalg.vector_norm(whole, dim=1), length, 0)


def _new_directions(rest: Tensor, whole: Tensor) -> Tensor:
    """Orthonormal directions ``(k, D)`` of residuals ``(k, D)``, row by row; one that adds nothing is a row of zeros.

    Gram and Schmidt's, on the products of the rows, in fp64. Not by a QR of all: what it makes of a dependent row is
    rounding, to which it makes all later ones orthogonal.
    """
    rows, least = where_fp64_is(rest).double(), NOTHING_NEW * torch.linalg.vector_norm(where_fp64_is(whole), dim=1)
    left = rows @ rows.T
    steps, reach = torch.zeros_like(left), left.new_zeros(len(rows))
    for row in range(len(rows)):
        length = left[row, row].clamp(min=0).sqrt()
        reach[row] = torch.where(length > least[row], length, 0)
        steps[:, row] = torch.where(reach[row] > 0, left[:, row] / torch.where(reach[row] > 0, length, 1), 0)
        left = torch.addr(left, steps[:, row], steps[:, row], alpha=-1)
    adds = (reach > 0)[:, None]
    steps = torch.where(adds, steps.tril(), 0) + torch.diag(torch.where(reach > 0, 0.0, 1.0).double())
    found = torch.linalg.solve_triangular(steps, torch.where(adds, rows, 0), upper=False)
    lasting = reach > EPSILON * reach.amax() if len(rows) else adds.squeeze(1)
    return (found * lasting[:, None]).to(rest.dtype).to(rest.device)
