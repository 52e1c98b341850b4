# SPDX-License-Identifier: Apache-2.0
"""Where a clip stands in a prompt: in one piece, or frame by frame with the time before each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tokenprune.errors import UnsupportedModeError
from tokenprune.messages import shown

LEAD = 14
"""Text tokens before the clip: as many as Qwen's template puts there."""
STAMP = 5
"""Text tokens of a time such as ``<12.5 seconds>``."""
FRAME_BY_FRAME = {"qwen2_vl": False, "qwen2_5_vl": False, "qwen3_vl": True, "qwen3_vl_moe": True}
"""Model type -> whether its processor writes times between frames; of others nothing is known."""


@dataclass(frozen=True)
class ClipLayout:
    """The marks and times around a clip of ``grid`` ``(T, H, W)`` visual tokens.

    >>> ClipLayout((2, 1, 3), frame_by_frame=False).length, ClipLayout((2, 1, 3), frame_by_frame=True).length
    (8, 22)
    """

    grid: tuple[int, int, int]
    frame_by_frame: bool

    @classmethod
    def of(cls, config: Any, grid: tuple[int, int, int]) -> ClipLayout:
        """The layout of a model with this configuration.

        Raises:
            UnsupportedModeError: it is of a type whose prompts are not known here.
        """
        if config.model_type not in FRAME_BY_FRAME:
            known = ", ".join(FRAME_BY_FRAME)
            raise UnsupportedModeError(f"speed is measured of {known} models, this one is {shown(config.model_type)}")
        return cls(grid, FRAME_BY_FRAME[config.model_type])

    @property
    def times(self) -> int:
        """Text tokens that times take."""
        return self.grid[0] * STAMP if self.frame_by_frame else 0

    @property
    def length(self) -> int:
        """Tokens from the first mark to the last."""
        return 2 + math.prod(self.grid) + self.times + (2 * self.grid[0] if self.frame_by_frame else 0)

    def ids(self, config: Any, times: Tensor) -> Tensor:
        """``(length,)`` ids.

        Args:
            config: of the model, with the ids of marks and placeholder.
            times: ``(times,)`` ids of text.
        """
        begin, end = times.new_tensor([config.vision_start_token_id]), times.new_tensor([config.vision_end_token_id])
        steps, height, width = self.grid
        if not self.frame_by_frame:
            return torch.cat([begin, times.new_full((steps * height * width,), config.video_token_id), end])
        frame = torch.cat([begin, times.new_full((height * width,), config.video_token_id), end])
        frames = [part for time in times.split(STAMP) for part in (time, frame)]
        return torch.cat([begin, *frames, end])
