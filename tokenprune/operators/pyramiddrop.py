# SPDX-License-Identifier: Apache-2.0
"""PyramidDrop: after each quarter of the layers, half of the visual tokens go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from tokenprune.about import About
from tokenprune.operator import Operator
from tokenprune.operators.inside import keeping_best, last_row_attention
from tokenprune.operators.progressive import Progressive, ProgressiveStage
from tokenprune.plan import TokenPlan
from tokenprune.tokens import VisualTokens


@dataclass(frozen=True)
class PyramidDropStage(ProgressiveStage):
    """One stage of :class:`PyramidDrop`: rank by the next layer's attention of the last text token."""

    layer: int | float = 0.24

    reads: ClassVar[tuple[str, ...]] = ("attention+1",)

    def decide(self, tokens: VisualTokens, count: int) -> TokenPlan:
        """The pruning; ``plan.scores`` is that attention."""
        return keeping_best(last_row_attention(tokens, layer=1), count)


@dataclass(frozen=True)
class PyramidDrop(Progressive):
    """A schedule: at the end of each stage of the decoder keep the tokens that the last text token attends to most.

    PyramidDrop (arXiv 2410.17247), section 3: the decoder is divided into S stages; at the end of each but the last a
    share lambda of the visual tokens is kept, ranked by attention, mean over heads, of the last text token, whose query
    and the visual keys are made of the hidden states there by the projections of the next layer. Defaults: S = 4,
    lambda = 0.5, that is 1/2, 1/4 and 1/8 after 8, 16 and 24 of 32 layers: 46.9 % over the layers. All shares are of
    the tokens that entered the first stage.

    Differs from the authors' code: budgets are rounded up, where it rounds down; a kept token keeps its position, where
    it numbers positions anew at each stage; ties go to the lower index; batches; the caches of earlier layers are cut
    as well.

    Published: LLaVA-NeXT takes 40 % less time to train and 55 % fewer FLOPs to answer at comparable scores; no figure
    for Qwen2.5-VL on video.

    >>> [(stage.layer, stage.keep_ratio) for stage in PyramidDrop().operators(28)]
    [(6, 0.5), (13, 0.25), (20, 0.125)]

    Args:
        keep_ratio: fraction **kept** after the last stage; after stage i of S it is ``keep_ratio ** (i / S)``: the
            paper's lambda is ``keep_ratio ** (1 / S)``.
        keep: exact number kept after the last stage, in place of a ratio.
        ratios: fraction **kept** after each stage, of what entered the first; default (0.5, 0.25, 0.125), unless there
            is a budget.
        layers: the layer after which each stage acts; default: at the end of each quarter of the depth but the last.
        modalities: which visual tokens are ranked and may be cut: ``"video"``, ``"image"`` or both.

    Raises:
        BudgetError: more than one of ``keep_ratio``, ``keep`` and ``ratios``, or a value that is not allowed.
        InvalidValueError: ``layers`` are not as many as ``ratios``, or any argument is not allowed.
    """

    about: ClassVar[About] = About("arXiv 2410.17247", "MIT", "L D d G + H L d a stage")
    published: ClassVar[tuple[float, ...]] = (0.5, 0.25, 0.125)
    needs: ClassVar[tuple[str, ...]] = ("attention",)
    site: ClassVar[str] = "after_layer"

    def _layers(self, depth: int, count: int) -> Sequence[int]:
        return [max(0, depth * stage // (count + 1) - 1) for stage in range(1, count + 1)]

    def _stage(self, layer: int | float, keep_ratio: float | None, keep: int | None, part: float) -> Operator:
        return PyramidDropStage(layer, keep_ratio, keep, self.modalities, part)
