# SPDX-License-Identifier: Apache-2.0
"""Where the videos and images of a LLaVA-OneVision prompt stand: the config knows the grid, the ids the rest."""

from __future__ import annotations

from typing import Any

import torch

from tokenprune import Prompt, UnsupportedModeError, VisualSpan
from tokenprune.hf import PlaceholderRun, placeholder_runs


def visual_boundaries(prompt: Prompt, config: Any) -> list[list[VisualSpan]]:
    """Per row its videos and images; the newline after each is a placeholder outside the grid, so it is text.

    Raises:
        UnsupportedModeError: a run of placeholders that is not whole frames, or not one plain image, and a newline.
    """
    runs = placeholder_runs(prompt, {"video": config.video_token_index, "image": config.image_token_index})
    side = config.vision_config.image_size // config.vision_config.patch_size
    return [[_video(run, side) if run.modality == "video" else _image(run, side) for run in row] for row in runs]


def _video(run: PlaceholderRun, side: int) -> VisualSpan:
    """Frames of tokens pooled to half the side, rounded up, and one newline at the end of the video."""
    side = -(-side // 2)
    frames, rest = divmod(len(run) - 1, side * side)
    if frames < 1 or rest:
        raise UnsupportedModeError(
            f"the {len(run)} video tokens at column {run.start} of row {run.row} are not frames of {side}x{side} and a "
            "newline; put text between two videos"
        )
    return _span(run, (frames, side, side))


def _image(run: PlaceholderRun, side: int) -> VisualSpan:
    """One of several images: ``side`` x ``side`` tokens and a newline. A single image is cut into tiles (anyres)."""
    if len(run) != side * side + 1:
        raise UnsupportedModeError(
            f"the {len(run)} image tokens at column {run.start} of row {run.row} are not one image of {side}x{side} "
            "and a newline: an image in tiles (anyres) has a grid that the ids do not tell, and two images need "
            "text between them"
        )
    return _span(run, (1, side, side))


def _span(run: PlaceholderRun, grid: tuple[int, int, int]) -> VisualSpan:
    return VisualSpan(run.modality, grid, torch.arange(run.start, run.stop - 1, device="cpu"))
