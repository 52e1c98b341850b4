# SPDX-License-Identifier: Apache-2.0
"""A real clip in the size that is asked for: zeros would be attended to, normalised and cached unlike a video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tokenprune.hf.frontend.video import load_clip

FRAMES = 16
"""Frames that are read from the file; longer clips show them several times."""


def video_processor(vision: Any) -> Any:
    """Qwen's video processor for a tower of this configuration."""
    from transformers import Qwen2VLVideoProcessor

    return Qwen2VLVideoProcessor(
        patch_size=vision.patch_size,
        merge_size=vision.spatial_merge_size,
        temporal_patch_size=vision.temporal_patch_size,
    )


def clip_pixels(processor: Any, video: Path, grid: tuple[int, int, int], batch: int) -> Tensor:
    """A video file as the vision tower takes it: ``(batch * patches, numbers of a patch)``, fp32 on the CPU.

    Args:
        processor: a Qwen2-VL video processor; its resizing is left out, since the grid is given.
        video: the file.
        grid: visual tokens ``(T, H, W)`` of each clip.
        batch: clips; each begins at a later frame than the one before.
    """
    steps, rows, columns = grid
    side = int(processor.patch_size) * int(processor.merge_size)
    wanted = steps * int(processor.temporal_patch_size)
    shown = load_clip(video, frames=FRAMES).frames
    places = np.arange(wanted) * len(shown) // wanted
    pixels = []
    for row in range(batch):
        frames = torch.from_numpy(shown[(places + row) % len(shown)]).permute(0, 3, 1, 2)
        frames = _resized(frames, (rows * side, columns * side))
        made = processor(
            videos=[frames],
            do_resize=False,
            do_sample_frames=False,
            cap_pixels_per_frame=False,  # nothing is resized, but left open it is warned about
            return_tensors="pt",
        )
        pixels.append(made["pixel_values_videos"])
    return torch.cat(pixels)


def _resized(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """``(F, 3, height, width)`` uint8 in another size, frame by frame."""
    return torch.cat(
        [F.interpolate(frame[None].float(), size, mode="bilinear", antialias=True) for frame in frames]
    ).to(torch.uint8)
