# SPDX-License-Identifier: Apache-2.0
"""Frames made as small as the model will see them while they are read, so that large ones are never held together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from tokenprune.hf.frontend.pixels import PixelOptions, frame_size
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
    """The size that a video processor of patches picks, and the very resampling it uses.

    Each frame then holds the numbers that the processor would have made of it, and its own resizing changes nothing.
    Frames that it would enlarge are left to it.

    Args:
        pixels: the processor, whose output has ``video_grid_thw``, and how it is told the largest size.
    """

    pixels: PixelOptions

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
        kind: Any = int(self.pixels.processor.resample)  # torchvision takes PIL's numbers too
        resized = functional.resize(pixels, list(size), interpolation=kind, antialias=True)
        return resized.permute(1, 2, 0).numpy()

    def _asked(self, height: int, width: int, frames: int) -> Size:
        return frame_size(self.pixels.processor, height, width, frames, self.pixels.for_clips([frames]))
