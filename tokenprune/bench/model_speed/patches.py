# SPDX-License-Identifier: Apache-2.0
"""Clips of towers that take flattened patches and their grids: all generations of Qwen-VL."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tokenprune.bench.model_speed.clip import clip_frames
from tokenprune.bench.model_speed.layout import ClipLayout, Grid
from tokenprune.hf.frontend.family import Parts
from tokenprune.hf.frontend.features import VideoFeatures, encoded_before

if TYPE_CHECKING:
    from tokenprune.bench.model_speed.prompt import SpeedPrompt

GRIDS = "video_grid_thw"
TYPES = "mm_token_type_ids"


@dataclass(frozen=True)
class Patches:
    """A :class:`tokenprune.bench.model_speed.clip_kind.ClipKind` with M-RoPE positions.

    Args:
        written: where a clip stands in a prompt.
    """

    written: Callable[[Any, Grid], ClipLayout]

    def layout(self, config: Any, grid: Grid) -> ClipLayout:
        return self.written(config, grid)

    def processor(self, config: Any) -> Any:
        from transformers import Qwen2VLVideoProcessor

        vision = config.vision_config
        return Qwen2VLVideoProcessor(
            patch_size=vision.patch_size,
            merge_size=vision.spatial_merge_size,
            temporal_patch_size=vision.temporal_patch_size,
        )

    def pixels(self, processor: Any, video: Path, grid: Grid, batch: int) -> Tensor:
        """``(batch * patches, numbers of a patch)``."""
        steps, rows, columns = grid
        side = int(processor.patch_size) * int(processor.merge_size)
        frames = steps * int(processor.temporal_patch_size)
        clips = clip_frames(video, frames, (rows * side, columns * side), batch)
        return torch.cat([self._processed(processor, clip) for clip in clips])

    def _processed(self, processor: Any, clip: Tensor) -> Tensor:
        made = processor(
            videos=[clip],
            do_resize=False,
            do_sample_frames=False,
            cap_pixels_per_frame=False,  # nothing is resized, but left open it is warned about
            return_tensors="pt",
        )
        return made["pixel_values_videos"]

    def beside(self, config: Any, ids: Tensor, pixels: Tensor, grid: Grid) -> dict[str, Tensor]:
        """Types, grids in patches, and the pixels of one visual token."""
        merge = int(config.vision_config.spatial_merge_size)
        steps, height, width = grid
        return {
            TYPES: 2 * (ids == config.video_token_id).int(),
            GRIDS: torch.tensor([[steps, merge * height, merge * width]] * len(ids), device=ids.device),
            "pixel_values_videos": pixels[: merge**2].to(ids.device),
        }

    @torch.no_grad()
    def encode(self, parts: Parts, pixels: Tensor, prompt: SpeedPrompt) -> VideoFeatures:
        output = parts.tower(pixels, grid_thw=prompt.beside[GRIDS])
        return VideoFeatures(output.pooler_output, tuple(getattr(output, "deepstack_features", None) or ()))

    def shown(self, parts: Parts, prompt: SpeedPrompt) -> AbstractContextManager[None]:
        return encoded_before(parts.tower, prompt.features)

    def positions(self, parts: Parts, prompt: SpeedPrompt) -> Tensor:
        """The library's own."""
        library: Any = parts.prompt  # its annotations ask for torch's old tensor types
        given = prompt.beside
        positions, _ = library.get_rope_index(prompt.ids, given[TYPES], video_grid_thw=given[GRIDS])
        return positions
