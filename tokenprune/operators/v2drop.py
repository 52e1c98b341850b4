# SPDX-License-Identifier: Apache-2.0
"""V2Drop: visual tokens that a layer hardly moves are dropped, at an early, a middle and a late layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from tokenprune.about import About
from tokenprune.attention_view import attention_of
from tokenprune.batching import pieces
from tokenprune.device import where_fp64_is
from tokenprune.errors import InvalidValueError
from tokenprune.operator import Operator
from tokenprune.operators.inside import keeping_best
from tokenprune.operators.progressive import Progressive, ProgressiveStage, at_fractions
from tokenprune.plan import TokenPlan
from tokenprune.tokens import VisualTokens

EARLY, MIDDLE, LATE = 0.08, 0.53, 0.67


@dataclass(frozen=True)
class V2DropStage(ProgressiveStage):
    """One stage of :class:`V2Drop`: rank by how far the layer has moved each token."""

    layer: int | float = EARLY

    reads: ClassVar[tuple[str, ...]] = ("features", "hidden-1")

    def decide(self, tokens: VisualTokens, count: int) -> TokenPlan:
        """The pruning; ``plan.scores`` is how far each token has moved, in the units of the hidden states.

        Raises:
            InvalidValueError: hidden states hold NaN or infinity (this waits for the device).
        """
        after, before = tokens.features, attention_of(tokens).hidden(layer=-1).to(tokens.features.device)
        after, before = where_fp64_is(after), where_fp64_is(before)
        ends = torch.stack([end.double() for states in (after, before) for end in torch.aminmax(states)])
        if not bool(torch.isfinite(ends).all()):
            raise InvalidValueError("hidden states must be finite, but they hold NaN or infinity")
        largest = ends.abs().amax()
        scale = torch.where(largest > 0, largest, 1)  # so that no square overflows
        moved = [
            (after[part].double() / scale - before[part].double() / scale).square().sum(dim=1).sqrt()
            for part in pieces(len(after), 4 * after.shape[1], after.device)
        ]
        far = torch.cat(moved).to(tokens.features.device)
        return replace(keeping_best(far, count), scores=(far * scale.to(far.device)).float())


@dataclass(frozen=True)
class V2Drop(Progressive):
    """A schedule: at an early, a middle and a late layer keep the visual tokens that the layer has moved most.

    V2Drop (arXiv 2509.01552), "variation-aware vision token dropping": a token whose hidden state a layer hardly
    changes is lazy; its variation is the Euclidean distance of what the layer puts out and what it was given. At each
    stage the tokens of least variation go. It reads no attention, so that every attention kernel can run. Defaults, for
    LLaVA's 32 layers: a half goes before layer 3, half of the rest before layer 17, all but one token before layer 22:
    after layers 2, 16 and 21; here the same fractions of any depth.

    Differs from the authors' code: ratios are of the tokens that entered the first stage (theirs are of what is left),
    and rounded up; ties go to the lower index; batches; the caches of earlier layers are cut as well. Nothing is before
    layer 0, so it cannot be asked there.

    Published: LLaVA-OneVision-7B keeps 98.6 % of its video scores while generation in the LLM takes 74.2 % less time;
    no figure for Qwen2.5-VL.

    >>> [(stage.layer, stage.keep_ratio or stage.keep) for stage in V2Drop().operators(32)]
    [(2, 0.5), (16, 0.25), (21, 1)]

    Args:
        keep_ratio: fraction **kept** after the last stage; after stage i of S it is ``keep_ratio ** (i / S)``.
        keep: exact number kept after the last stage, in place of a ratio.
        ratios: fraction **kept** after each stage, of what entered the first; default (0.5, 0.25, 0), which keeps one
            token, unless there is a budget.
        layers: the layer after which each stage acts, 1 at least; default: 8, 53 and 67 % of the depth.
        modalities: which visual tokens are ranked and may be cut: ``"video"``, ``"image"`` or both.

    Raises:
        BudgetError: more than one of ``keep_ratio``, ``keep`` and ``ratios``, or a value that is not allowed.
        InvalidValueError: ``layers`` are not as many as ``ratios``, or any argument is not allowed.
    """

    published: ClassVar[tuple[float, ...]] = (0.5, 0.25, 0.0)
    about: ClassVar[About] = About("arXiv 2509.01552", "Apache-2.0", "N D a stage")
    needs: ClassVar[tuple[str, ...]] = ("attention",)
    site: ClassVar[str] = "after_layer"

    def _layers(self, depth: int, count: int) -> Sequence[int]:
        return at_fractions((EARLY, MIDDLE, LATE), depth, count, least=1)

    def _stage(self, layer: int | float, keep_ratio: float | None, keep: int | None, part: float) -> Operator:
        return V2DropStage(layer, keep_ratio, keep, self.modalities, part)
