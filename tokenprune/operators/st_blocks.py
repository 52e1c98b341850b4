# SPDX-License-Identifier: Apache-2.0
"""The blocks that STMerge clusters apart: the static tokens of each segment, the dynamic tokens of each frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from tokenprune.device import places_where, upload
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
    def starts(self) -> Tensor:
        """``(S,)`` first frame of each segment."""
        return torch.tensor([start for start, _ in self.segments], device="cpu")

    @cached_property
    def widths(self) -> Tensor:
        """``(S,)`` number of frames of each segment."""
        return torch.tensor([stop - start for start, stop in self.segments], device="cpu")

    @cached_property
    def segment_of(self) -> Tensor:
        """``(T,)`` segment of each frame."""
        return torch.repeat_interleave(torch.arange(len(self.segments), device="cpu"), self.widths)

    @cached_property
    def static_labels(self) -> Tensor:
        """``(S,)`` number of each segment's static block."""
        return self.starts + torch.arange(len(self.segments), device="cpu")

    @cached_property
    def dynamic_labels(self) -> Tensor:
        """``(T,)`` number of each frame's dynamic block."""
        return torch.arange(len(self.segment_of), device="cpu") + self.segment_of + 1

    @cached_property
    def sizes(self) -> list[int]:
        """Tokens of each block that can go on: a static position counts once, a dynamic one in each frame."""
        still = self.still.sum(dim=1)
        sizes = torch.empty(len(self.segments) + len(self.segment_of), dtype=torch.int64, device="cpu")
        sizes[self.static_labels] = still
        sizes[self.dynamic_labels] = self.still.shape[1] - still[self.segment_of]
        return sizes.tolist()

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

    def to_plan(self, static_centres: Tensor, dynamic_centres: Tensor, kept: int) -> TokenPlan:
        """The plan that merges every token into its centre; a static centre stands in the segment's first frame.

        Args:
            static_centres: ``(S, L)`` int64, the position of the centre of each static position, -1 for dropped.
            dynamic_centres: ``(T, L)`` int64, the same for each dynamic token.
            kept: the number of centres.
        """
        device = dynamic_centres.device
        frames, length = dynamic_centres.shape
        parts = (self.segment_of, self.starts, self.static_labels, self.dynamic_labels, self.still.flatten())
        segment_of, starts, static_labels, dynamic_labels, still = upload(torch.cat(parts), device).split(
            [len(part) for part in parts]
        )
        still = still.view_as(self.still)[segment_of] > 0
        frame = torch.arange(frames, device=device)[:, None]
        frame = torch.where(still, starts[segment_of][:, None], frame)
        label = torch.where(still, static_labels[segment_of][:, None], dynamic_labels[:, None])
        centre = torch.where(still, static_centres[segment_of], dynamic_centres)
        target = torch.where(centre >= 0, frame * length + centre, -1).flatten()

        is_anchor = target == torch.arange(frames * length, device=device)
        anchors = places_where(is_anchor, kept)
        place = is_anchor.cumsum(0) - 1
        assign = torch.where(target >= 0, place[target.clamp(min=0)], -1)
        return TokenPlan(anchors, assign, blocks=label.flatten()[anchors], segments=tuple(self.segments))
