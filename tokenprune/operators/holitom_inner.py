# SPDX-License-Identifier: Apache-2.0
"""HoliTom's inner half: late in the LLM, tokens that are little attended to are folded into the others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from tokenprune import batching
from tokenprune.about import About
from tokenprune.operators.inside import InsideLLM, keeping_best, last_row_attention
from tokenprune.operators.unit_vectors import all_cosines, deciding, units
from tokenprune.plan import Mixing, TokenPlan
from tokenprune.tokens import VisualTokens


@dataclass(frozen=True)
class HoliTomInner(InsideLLM):
    """Keep the visual tokens that the last text token attends to most, and fold each other one into the most similar.

    HoliTom (arXiv 2505.21334), the merging inside the LLM that follows :class:`HoliTom`: before layer k the tokens are
    ranked by the attention of the last text token in the layer before, mean over heads. Each token that does not stay
    is averaged into the kept one of largest cosine between hidden states, one after the other in the order of the
    prompt, ``h <- (h + d) / 2``: of m tokens the i-th weighs ``2 ** -(m - i + 1)`` and the kept one ``2 ** -m``, so
    that the last counts for a half. ``layer`` = k - 1; defaults of the paper: k = 18 of 28 layers, a half stays.

    Differs from the authors' code: the budget is rounded up, where it rounds halves to even; the sums are written
    down as weights and made at once; batches; ties go to the lower index, cosines being resolved to 1e-6; the caches
    of layers 0..layer keep the kept tokens' own keys and values only. Where attention has mass, every token counts as
    one, however little it weighs.

    Published with its outer half: LLaVA-OneVision-7B keeps 99.1 % of its scores at 10 % of the tokens and 6.9 % of the
    FLOPs; no figure for Qwen2.5-VL.

    >>> HoliTomInner(keep_ratio=0.5)
    HoliTomInner(layer=0.62, keep_ratio=0.5, keep=None, modalities=('video',))

    Args:
        layer: layers 0..layer see every token, later ones the kept; a 0-based int, or a float in (0, 1): that fraction
            of the depth, rounded down.
        keep_ratio: fraction of a row's visual tokens that is **kept**; 1 minus the paper's r.
        keep: exact number of tokens kept, instead of ``keep_ratio``.
        modalities: which visual tokens are ranked and may be merged: ``"video"``, ``"image"`` or both.

    Raises:
        BudgetError: not exactly one of ``keep_ratio`` and ``keep``, or a value that is not allowed.
        InvalidValueError: any other argument that is not allowed; or, by ``plan``, attention or features hold NaN or
            infinity.
    """

    layer: int | float = 0.62

    about: ClassVar[About] = About("arXiv 2505.21334", "Apache-2.0", "H L d + N K D")
    reads: ClassVar[tuple[str, ...]] = ("features", "attention")

    def decide(self, tokens: VisualTokens, count: int) -> TokenPlan:
        """The merging; ``plan.scores`` is the attention of the last text token."""
        with deciding(tokens):
            plan = keeping_best(last_row_attention(tokens), count)
            places = _closest(units(tokens.features), plan.anchors)
            assign = torch.where(plan.assign >= 0, plan.assign, places)
        return replace(plan, assign=assign, merges=True, mixing=_folded(assign, plan.anchors))


def _closest(rows: Tensor, anchors: Tensor) -> Tensor:
    """For each unit row ``(N, D)`` the place of the anchor of largest cosine; ties to the lower."""
    targets = rows[anchors]
    step = max(1, batching.DISTANCE_BYTES // (len(targets) * batching.BYTES_A_PAIR))
    return torch.cat([all_cosines(part, targets).argmax(dim=1) for part in rows.split(step)])


def _folded(assign: Tensor, anchors: Tensor) -> Mixing:
    """The weights of folding each token into its home, one after the other."""
    total = len(assign)
    is_anchor = torch.zeros(total, dtype=torch.int64, device=assign.device)
    is_anchor[anchors] = 1
    order = torch.argsort(2 * assign - is_anchor, stable=True)  # home by home, of each the anchor first
    places = assign[order]
    counts = torch.bincount(assign, minlength=len(anchors))
    turn = torch.arange(total, device=order.device) - (counts.cumsum(0) - counts)[places]
    halvings = counts[places] - torch.where(turn > 0, turn, 1)  # m - i + 1 of the i-th of m others, m of the anchor
    return Mixing(places, order, torch.ldexp(torch.ones(total, device=order.device), -halvings))
