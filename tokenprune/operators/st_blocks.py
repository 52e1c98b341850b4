# SPDX-License-Identifier: Apache-2.0
"""The blocks that STMerge and HoliTom decide apart: a segment's static tokens, the dynamic tokens of each frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from tokenprune.device import upload
from tokenprune.plan import TokenPlan
from tokenprune.segments import Segment


@dataclass(frozen=True, eq=False)
class Blocks:
    """S segments of T frames, and which of the L positions are static in each. All of it on the CPU.

    Blocks are numbered in time order: a segment's static block, then the dynamic block of each of its frames.

    Args:
        segments: frames ``[start, stop)`` of each segment, in order, without gaps.
        still: ``(S, L)`` bool, whether a position is static in a segment.
    """

    segments: Sequence[Segment]
    still: Tensor

    @cached_property
    def widths(self) -> Tensor:
        """``(S,)`` number of frames of each segment."""
        return torch.tensor([stop - start for start, stop in self.segments], device="cpu")

    @cached_property
    def _segment_of(self) -> Tensor:
        """``(T,)`` segment of each frame."""
        return torch.repeat_interleave(torch.arange(len(self.segments), device="cpu"), self.widths)

    @cached_property
    def _static(self) -> Tensor:
        """``(S,)`` number of each segment's static block."""
        return self.widths.cumsum(0) - self.widths + torch.arange(len(self.segments), device="cpu")

    @cached_property
    def _dynamic(self) -> Tensor:
        """``(T,)`` number of each frame's dynamic block."""
        return torch.arange(len(self._segment_of), device="cpu") + self._segment_of + 1

    @cached_property
    def members(self) -> Tensor:
        """``(B, L)`` bool, the positions of each block."""
        return self._numbered(self.still, ~self.still[self._segment_of])

    @cached_property
    def widths_merged(self) -> Tensor:
        """``(B,)`` how many frames a token of each block stands for: its segment's, or one."""
        return self._numbered(self.widths, torch.ones_like(self._segment_of))

    @cached_property
    def first_frames(self) -> Tensor:
        """``(B,)`` the frame in which each block's tokens stand: its segment's first, or its own."""
        starts = self.widths.cumsum(0) - self.widths
        return self._numbered(starts, torch.arange(len(self._segment_of), device="cpu"))

    @cached_property
    def sizes(self) -> list[int]:
        """Tokens of each block that can go on: a static position counts once, a dynamic one in each frame."""
        return self.members.sum(dim=1).tolist()

    @property
    def static_blocks(self) -> list[tuple[int, Segment]]:
        """Number and frames of each segment's static block, where it has several frames."""
        numbered = zip(self._static.tolist(), self.segments)
        return [(number, (start, stop)) for number, (start, stop) in numbered if stop - start > 1]

    def _numbered(self, static: Tensor, dynamic: Tensor) -> Tensor:
        """One entry a block, ``(B, ...)``, from those of static blocks ``(S, ...)`` and dynamic ones ``(T, ...)``."""
        both = dynamic.new_empty(len(static) + len(dynamic), *static.shape[1:])
        both[self._static], both[self._dynamic] = static, dynamic
        return both

    def with_room_for(self, budget: int, similarity: Tensor, *, resolution: float) -> Blocks:
        """The same blocks, with static positions made dynamic, least similar first, until ``budget`` tokens can go on.

        Similarities ``(S, L)`` are compared in steps of ``resolution``; the earlier segment and the lower position go
        first among equals. The budget may not exceed the number of tokens.
        """
        missing = budget - sum(self.sizes)
        if missing <= 0:
            return self
        steps = torch.where(self.still, (similarity.double() / resolution).round(), torch.inf)
        order = steps.flatten().argsort(stable=True)
        gains = (self.widths - 1)[:, None].expand_as(self.still).flatten()[order]
        released = order[: int((gains.cumsum(0) < missing).sum()) + 1]
        still = self.still.flatten().clone()
        still[released] = False
        return replace(self, still=still.view_as(self.still))

    def to_plan(self, centres: Tensor, kept: int) -> TokenPlan:
        """The plan that merges every token into its centre; a static centre stands in the segment's first frame.

        Args:
            centres: ``(B, L)`` int64, the position of the centre of each position of a block, -1 for dropped.
            kept: the number of centres.
        """
        device, length = centres.device, centres.shape[1]
        block_of = torch.where(
            self.still[self._segment_of], self._static[self._segment_of, None], self._dynamic[:, None]
        )
        position = torch.arange(length, device="cpu")
        # Of each token: its block, the place of its entry in `centres`, and the first token of its block's frame.
        known = torch.stack([block_of, block_of * length + position, self.first_frames[block_of] * length])
        block, entry, corner = upload(known.flatten(1), device)
        centre = centres.flatten()[entry]
        target = torch.where(centre >= 0, corner + centre, -1)

        plan = TokenPlan.merging(target, kept)
        return replace(plan, blocks=block[plan.anchors], segments=tuple(self.segments))
