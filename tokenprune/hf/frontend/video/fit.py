# SPDX-License-Identifier: Apache-2.0
"""Frames made as small as the model will see them while they are read, so that large ones are never held together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tokenprune.hf.frontend.video.clip import Frames

Size = tuple[int, int]
"""Height and width."""


class Fit(Protocol):
    """Which size frames get while they are read, and how."""

    def size(self, height: int, width: int, frames: int) -> Size | None:
        """The smaller size that so many frames of this one get; None: they are left as they are."""
        ...

    def resize(self, frame: Frames, size: Size) -> Frames:
        """One frame ``(H, W, 3)`` in that size."""
        ...


@dataclass(frozen=True)
class ProcessorFit:
    """The size that a Qwen-VL video processor picks, and the very resampling it uses.

    Each frame then holds the numbers that the processor would have made of it, and its own resizing changes nothing.
    Frames that it would enlarge are left to it.

    Args:
        processor: a video processor whose output has ``video_grid_thw``.
        options: what it is called with: ``size`` and the like.
    """

    processor: Any
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def size(self, height: int, width: int, frames: int) -> Size | None:
        """What the processor makes of such frames; it is asked, without any pixels, and so no rule is copied here."""
        target = self._asked(height, width, frames)
        smaller = target[0] <= height and target[1] <= width and target != (height, width)
        return target if smaller and self._asked(*target, frames) == target else None

    def resize(self, frame: Frames, size: Size) -> Frames:
        """With torchvision's resampling, as the processor does."""
        import torch
        from torchvision.transforms.v2 import functional

        pixels = torch.from_numpy(frame).permute(2, 0, 1).contiguous()
        kind: Any = int(self.processor.resample)  # torchvision takes PIL's numbers too
        resized = functional.resize(pixels, list(size), interpolation=kind, antialias=True)
        return resized.permute(1, 2, 0).numpy()

    def _asked(self, height: int, width: int, frames: int) -> Size:
        import torch

        empty = torch.empty((frames, 3, height, width), dtype=torch.uint8, device="meta")
        made = self.processor(videos=[empty], do_sample_frames=False, return_tensors="pt", **self.options)
        _, rows, columns = made["video_grid_thw"][0].tolist()
        patch = int(self.processor.patch_size)
        return rows * patch, columns * patch
