# SPDX-License-Identifier: Apache-2.0
"""A real clip in the size that is asked for: zeros would be attended to, normalised and cached unlike a video."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tokenprune.hf.frontend.video import load_clip

FRAMES = 16
"""Frames that are read from the file; longer clips show them several times."""


def clip_frames(video: Path, count: int, size: tuple[int, int], batch: int) -> list[Tensor]:
    """``(count, 3, height, width)`` uint8 frames for each clip of a batch.

    Args:
        video: the file.
        count: frames of a clip.
        size: height and width.
        batch: clips; each begins at a later frame than the one before.
    """
    shown = load_clip(video, frames=FRAMES).frames
    places = np.arange(count) * len(shown) // count
    clips = [torch.from_numpy(shown[(places + row) % len(shown)]).permute(0, 3, 1, 2) for row in range(batch)]
    return [_resized(clip, size) for clip in clips]


def _resized(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """``(F, 3, height, width)`` uint8 in another size, frame by frame."""
    return torch.cat(
        [F.interpolate(frame[None].float(), size, mode="bilinear", antialias=True) for frame in frames]
    ).to(torch.uint8)
