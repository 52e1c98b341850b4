# SPDX-License-Identifier: Apache-2.0
"""What happened to one video or image, operator by operator, for those who want to look at it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tokenprune.plan import TokenPlan


@dataclass(frozen=True, eq=False)
class StepHistory:
    """What one operator changed.

    >>> StepHistory("UniformSelect", None, TokenPlan.keeping(torch.tensor([0, 2]), 4), scores=None).plan.kept
    2

    Args:
        operator: name of its class.
        layer: the decoder layer after which it acted; None elsewhere.
        plan: over the tokens that the steps before had left.
        scores: ``(N,)`` of those tokens, higher stays; None where the operator does not score. After the prefill: in
            which share of the layers and heads each is kept.
        site: where it acted, one of :data:`tokenprune.operator.SITES`.
    """

    operator: str
    layer: int | None
    plan: TokenPlan
    scores: Tensor | None
    site: str = "before_llm"


@dataclass(frozen=True, eq=False)
class SpanHistory:
    """One video or image of a prompt row.

    >>> plan = TokenPlan.identity(4)
    >>> SpanHistory("video", (1, 2, 2), torch.arange(5, 9), plan, steps=()).plan.is_identity
    True

    Args:
        modality: ``"video"`` or ``"image"``.
        grid: ``(T, H, W)`` of its tokens.
        columns: ``(T*H*W,)`` their columns in the ``input_ids`` as passed, in raster order.
        plan: what happened to them in all, as one plan.
        steps: the same operator by operator, those that changed nothing left out.
    """

    modality: str
    grid: tuple[int, int, int]
    columns: Tensor
    plan: TokenPlan
    steps: tuple[StepHistory, ...]
