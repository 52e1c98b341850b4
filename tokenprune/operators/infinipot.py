# SPDX-License-Identifier: Apache-2.0
"""InfiniPot-V: half of the budget to what is new in time, half to the largest values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from tokenprune.attention_view import AttentionView
from tokenprune.budget import as_fraction
from tokenprune.operators.press import ScoredPress, lengths, of_tokens
from tokenprune.points import RESOLUTION, inverse
from tokenprune.tokens import VisualTokens

Grid = tuple[int, int, int]


@dataclass(frozen=True)
class InfiniPotV(ScoredPress):
    """Of each layer's cache every key-value head keeps what is least like the recent frames, then the largest values.

    InfiniPot-V (arXiv 2506.15745). *TaR*, temporal-axis redundancy, fills ``alpha`` of the budget: the tokens of the
    last ``recent`` of the frames, then those whose keys have the smallest mean cosine to the keys at their place in
    these frames. *VaN*, value norm, fills the rest with the largest L2 norms of the values. It reads no question, so
    the cache serves later ones as well.

    Differs from the authors' code: one pass over the whole video instead of one whenever a stream has filled the
    memory; recent frames that do not fit into their part of the budget go on latest first, where the code fails (with
    budgets under ``recent / alpha`` they are all that TaR keeps: a smaller ``recent`` leaves it a choice); a place that
    an earlier operator has emptied counts as a cosine of 0; values are not pooled over neighbours; the budget is exact,
    ties go to the lower index.

    >>> keys, values = torch.tensor([[[1.0, 0], [0, 1], [1, 0], [1, 0]]]), torch.tensor([[[5.0], [1], [1], [9]]])
    >>> view = tp.AttentionView.of(keys[:, 3:], keys, torch.arange(3), values)
    >>> tokens = VisualTokens(keys[0, :3], (3, 1, 1), signals={"attention": view})
    >>> InfiniPotV(keep=2).plan(tokens)[0].anchors, InfiniPotV(keep=2, alpha=1.0).plan(tokens)[0].anchors
    (tensor([0, 2]), tensor([1, 2]))

    Args:
        keep_ratio: fraction of a prompt row's visual tokens that each layer and head **keeps**, in (0, 1].
        keep: exact number kept, instead of ``keep_ratio``.
        modalities: which visual tokens may be cut: ``"video"``, ``"image"`` or both.
        alpha: TaR's part of the budget, in [0, 1], rounded down to whole tokens.
        recent: the last frames of each video that are recent, a fraction in [0, 1], rounded down, but at least one.

    Raises:
        BudgetError: both or neither of ``keep_ratio`` and ``keep`` given, or a value that is not allowed.
        InvalidValueError: another argument is not allowed; or, by ``plan``, a score is NaN.
    """

    alpha: float = 0.5
    recent: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        as_fraction("alpha", self.alpha, low_open=False)
        as_fraction("recent", self.recent, low_open=False)

    def scores(self, tokens: VisualTokens, view: AttentionView, count: int) -> Tensor:
        """``(kv_heads, N)`` norms of the values; those of TaR's choice raised above all others."""
        norms = lengths(of_tokens(view.values(), view))
        first = math.floor(Fraction(str(self.alpha)) * count)
        if first == 0:
            return norms
        chosen = torch.argsort(self._novelty(tokens, view), dim=1, descending=True, stable=True)[:, :first]
        above = 1 + 2 * norms.amax(dim=1, keepdim=True)
        return norms.scatter_add(1, chosen, above.expand_as(chosen))

    def _novelty(self, tokens: VisualTokens, view: AttentionView) -> Tensor:
        """``(kv_heads, N)``: minus the mean cosine to the recent frames, in steps; in them higher, by frame."""
        keys, places, start = of_tokens(view.keys(), view), _places(tokens, view), 0
        parts: list[Tensor] = []
        for span in tokens.spans:
            recent = max(1, math.floor(Fraction(str(self.recent)) * span.grid[0]))
            mine = places[span.slice].to(keys.device) - start
            parts.append(torch.stack([_unlike(head[span.slice], mine, span.grid, recent) for head in keys]))
            start += math.prod(span.grid)
        return torch.cat(parts, dim=1)


def _places(tokens: VisualTokens, view: AttentionView) -> Tensor:
    return torch.arange(len(tokens), device=view.visual_columns.device) if tokens.places is None else tokens.places


def _unlike(keys: Tensor, places: Tensor, grid: Grid, recent: int) -> Tensor:
    """``(n,)`` of one video's keys ``(n, d)`` at raster ``places``, those of the last ``recent`` frames first."""
    frames, cells = grid[0], grid[1] * grid[2]
    frame, cell = torch.div(places, cells, rounding_mode="floor"), places % cells
    units = keys.float()
    units = units * inverse(lengths(units))[:, None]
    is_recent = frame >= frames - recent
    of_recent = units.new_zeros(recent, cells, units.shape[1])
    of_recent[frame[is_recent] - (frames - recent), cell[is_recent]] = units[is_recent]  # each place once: no atomics
    cosines = (units * of_recent.sum(0)[cell]).sum(1) / recent
    steps = (-cosines / RESOLUTION).round()  # what fp32 cannot tell apart is a tie
    return torch.where(is_recent, 2 / RESOLUTION + frame, steps)
