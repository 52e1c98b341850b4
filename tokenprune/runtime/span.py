# SPDX-License-Identifier: Apache-2.0
"""One video or image while it is being shortened."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from tokenprune.adapter import VisualSpan
from tokenprune.device import upload
from tokenprune.plan import TokenPlan
from tokenprune.trace import StepTrace


@dataclass(eq=False)
class RunningSpan:
    """What is left of one video or image, and where it stands now.

    Attributes:
        span: where it stood in the prompt.
        plan: what has happened to its T*H*W tokens so far.
        places: ``(K,)`` places of its K remaining tokens in the running sequence.
        standing: places of all its tokens that are in the running sequence; more than ``places`` between a decision
            and the shortening that follows it.
        blocks: ``(K,)`` block label of each, unique within the span.
        steps: what made the plan.
    """

    span: VisualSpan
    plan: TokenPlan
    places: Tensor
    blocks: Tensor
    standing: Tensor
    steps: list[StepTrace] = field(default_factory=list[StepTrace])

    @classmethod
    def start(cls, span: VisualSpan, device: torch.device) -> RunningSpan:
        """The whole span; its frames are its blocks."""
        frames, height, width = span.grid
        blocks = torch.arange(frames, device=device).repeat_interleave(height * width)
        places = upload(span.columns, device)
        return cls(span, TokenPlan.identity(len(places), device), places, blocks, places)

    @property
    def count(self) -> int:
        """Tokens left."""
        return len(self.places)

    def follow(self, plan: TokenPlan, operator: str, layer: int | None = None, scores: Tensor | None = None) -> None:
        """Record an operator's plan over the tokens left; places are still those before the shortening."""
        if plan.is_identity:
            return
        self.steps.append(StepTrace(operator, layer, plan, scores))
        self.plan = self.plan.then(plan)
        self.blocks = self.blocks[plan.anchors] if plan.blocks is None else plan.blocks
        self.places = self.places[plan.anchors]
