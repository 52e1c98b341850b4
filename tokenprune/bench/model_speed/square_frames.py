# SPDX-License-Identifier: Apache-2.0
"""Clips of towers that take whole frames, all squares of one size: LLaVA-OneVision."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tokenprune.bench.model_speed.clip import clip_frames
from tokenprune.bench.model_speed.layout import ClipLayout, Grid, with_tail
from tokenprune.errors import InvalidValueError
from tokenprune.hf.families.grids.squares import Squares
from tokenprune.hf.frontend.family import Parts
from tokenprune.hf.frontend.features import VideoFeatures

if TYPE_CHECKING:
    from tokenprune.bench.model_speed.prompt import SpeedPrompt


@dataclass(frozen=True)
class SquareFrames:
    """A :class:`tokenprune.bench.model_speed.clip_kind.ClipKind` with positions of one dimension.

    Args:
        grid: how many tokens a frame has, and how many placeholders follow the last.
    """

    grid: Squares

    def layout(self, config: Any, grid: Grid) -> ClipLayout:
        """One run.

        Raises:
            InvalidValueError: frames of another size than the model's.
        """
        side = self.grid.video(config)
        if grid[1:] != (side, side):
            raise InvalidValueError(
                f"a frame of {config.model_type} is {side}x{side} visual tokens, so the grid must be "
                f"{grid[0]}x{side}x{side}, got {'x'.join(map(str, grid))}"
            )
        return with_tail(config, grid, self.grid.tail)

    def processor(self, config: Any) -> Any:
        from transformers import LlavaOnevisionVideoProcessor

        side = int(config.vision_config.image_size)
        return LlavaOnevisionVideoProcessor(size={"height": side, "width": side})

    def pixels(self, processor: Any, video: Path, grid: Grid, batch: int) -> Tensor:
        """``(batch, T, 3, height, width)``."""
        size = (int(processor.size["height"]), int(processor.size["width"]))
        clips = clip_frames(video, grid[0], size, batch)
        made = [
            processor(videos=[clip], do_resize=False, do_sample_frames=False, return_tensors="pt") for clip in clips
        ]
        return torch.cat([each["pixel_values_videos"] for each in made])

    def beside(self, config: Any, ids: Tensor, pixels: Tensor, grid: Grid) -> dict[str, Tensor]:
        """Nothing: the tower is not asked at all."""
        return {}

    @torch.no_grad()
    def encode(self, parts: Parts, pixels: Tensor, prompt: SpeedPrompt) -> VideoFeatures:
        """By the model's own method, which pools beside the tower; some releases put the newline behind its tokens."""
        made: Tensor = parts.prompt.get_video_features(pixels).pooler_output
        return VideoFeatures(made[:, : prompt.visual_tokens].flatten(0, 1))

    @contextmanager
    def shown(self, parts: Parts, prompt: SpeedPrompt) -> Generator[None, None, None]:
        """The decoder's prefill finds them among its embeddings, before whoever reads those; steps are left alone."""
        embeds = prompt.embeds(parts)

        def place(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
            if kwargs["inputs_embeds"].shape[1] != prompt.length:
                return None
            return args, {**kwargs, "inputs_embeds": embeds}

        handle = parts.text.register_forward_pre_hook(place, with_kwargs=True, prepend=True)
        try:
            yield
        finally:
            handle.remove()

    def positions(self, parts: Parts, prompt: SpeedPrompt) -> Tensor:
        return torch.arange(prompt.length, device=prompt.ids.device).expand(prompt.rows, -1)
