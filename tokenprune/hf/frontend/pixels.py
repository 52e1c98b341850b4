# SPDX-License-Identifier: Apache-2.0
"""How a video processor is told how large frames may become; processors differ in what their bound is a bound of."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tokenprune.errors import InvalidValueError, VideoError
from tokenprune.messages import shown

# How far the processor's own rule may exceed its upper bound: a frame is given at least 1.05 times the lower one.
_SHARE_FLOOR = 1.05
_FEW, _MANY = 4, 16
_SIDE = 1024


@dataclass(frozen=True, eq=False)
class PixelOptions:
    """What a processor is called with so that no frame has more than ``max_pixels`` pixels; None: its own bound.

    >>> from transformers import Qwen2VLVideoProcessor
    >>> PixelOptions(Qwen2VLVideoProcessor(), max_pixels=50_000).for_clips([8])["size"]["longest_edge"]
    50000

    Args:
        processor: a video processor.
        max_pixels: of a frame after resizing.

    Raises:
        InvalidValueError: below one visual token, or frames of this processor have one size whatever it is told.
    """

    processor: Any
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        if self.max_pixels is None:
            return
        if not makes_patches(self.processor):
            raise InvalidValueError(
                f"max_pixels cannot be given: {type(self.processor).__name__} shows all frames in one size"
            )
        token = (self.processor.patch_size * self.processor.merge_size) ** 2
        if isinstance(self.max_pixels, bool) or not isinstance(self.max_pixels, int) or self.max_pixels < token:
            raise InvalidValueError(
                f"max_pixels must be a whole number of at least {token}, one visual token, got {shown(self.max_pixels)}"
            )

    def for_clips(self, frames: list[int]) -> dict[str, Any]:
        """For clips of so many frames.

        Raises:
            InvalidValueError: they differ, and this processor's bound is one for all frames of a clip together.
        """
        options: dict[str, Any] = {}
        if getattr(self.processor, "cap_pixels_per_frame", False) is None:
            options["cap_pixels_per_frame"] = True
        if self.max_pixels is None:
            return options
        times = 1
        if bounds_whole_clips(self.processor):
            if len(set(frames)) > 1:
                raise InvalidValueError("max_pixels needs clips of equally many frames with this processor")
            times = frames[0] if frames else 1
        lower = min(int(self.processor.size["shortest_edge"]), int(self.max_pixels / _SHARE_FLOOR))
        options["size"] = {"shortest_edge": lower, "longest_edge": self.max_pixels * times}
        return options


def makes_patches(processor: Any) -> bool:
    """Whether a video processor cuts frames into patches, and so keeps their shape and takes a bound of pixels."""
    sizes = getattr(processor, "size", None) or {}
    return all(hasattr(processor, name) for name in ("patch_size", "merge_size")) and "longest_edge" in sizes


def bounds_whole_clips(processor: Any) -> bool:
    """Whether the bound is shared by all frames of a clip: asked of the processor itself, without any pixels."""
    factor = processor.patch_size * processor.merge_size
    size = {"shortest_edge": factor**2, "longest_edge": _MANY * factor**2}
    return frame_size(processor, _SIDE, _SIDE, _FEW, {"size": size}) != frame_size(
        processor, _SIDE, _SIDE, _MANY, {"size": size}
    )


@contextmanager
def processor_errors() -> Generator[None, None, None]:
    """What a processor says of a clip that it cannot resize becomes a :class:`tokenprune.VideoError`."""
    try:
        yield
    except ValueError as error:
        if "aspect ratio" in str(error):
            raise VideoError(f"a video cannot be resized: {error}") from error
        if "temporal_factor" in str(error):
            raise VideoError(f"the processor takes no clip of so few frames: {error}") from error
        raise


def frame_size(processor: Any, height: int, width: int, frames: int, options: dict[str, Any]) -> tuple[int, int]:
    """Height and width that a processor which :func:`makes_patches` gives so many frames of this size.

    Raises:
        VideoError: it takes no such clip.
    """
    import torch

    empty = torch.empty((frames, 3, height, width), dtype=torch.uint8, device="meta")
    with processor_errors():
        made = processor(videos=[empty], do_sample_frames=False, return_tensors="pt", **options)
    _, rows, columns = made["video_grid_thw"][0].tolist()
    patch = int(processor.patch_size)
    return rows * patch, columns * patch
