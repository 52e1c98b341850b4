# SPDX-License-Identifier: Apache-2.0
"""Where a clip stands in a prompt: in one piece, or frame by frame with the time before each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Grid = tuple[int, int, int]
"""Visual tokens of a clip in time, height and width."""

LEAD = 14
"""Text tokens before the clip: as many as Qwen's template puts there."""
STAMP = 5
"""Text tokens of a time such as ``<12.5 seconds>``."""
TEXT = -1
"""Stands for a token of such a time."""


@dataclass(frozen=True, eq=False)
class ClipLayout:
    """The ids of a clip, its marks and the times between its frames.

    >>> ClipLayout(torch.tensor([5, TEXT, 7, 7, 6]), torch.tensor([2, 3])).times
    1

    Args:
        ids: ``(length,)``, :data:`TEXT` where a time stands.
        visual: ``(T*H*W,)`` places of the visual tokens.
    """

    ids: Tensor
    visual: Tensor

    @property
    def length(self) -> int:
        """Tokens from the first mark to the last."""
        return len(self.ids)

    @property
    def times(self) -> int:
        """Text tokens that times take."""
        return int((self.ids == TEXT).sum())

    def written(self, times: Tensor) -> Tensor:
        """``(length,)`` ids with the ``(times,)`` ids of text in their places."""
        return self.ids.masked_scatter(self.ids == TEXT, times)


def one_run(config: Any, grid: Grid) -> ClipLayout:
    """Between a start and an end.

    >>> from transformers import Qwen2_5_VLConfig
    >>> one_run(Qwen2_5_VLConfig(), (2, 1, 3)).length
    8
    """
    ids = [config.vision_start_token_id, *[config.video_token_id] * math.prod(grid), config.vision_end_token_id]
    return _layout(ids, config.video_token_id)


def frame_by_frame(config: Any, grid: Grid) -> ClipLayout:
    """Each frame between a start and an end, its time before it; and a start and an end around them all.

    >>> from transformers import Qwen3VLConfig
    >>> layout = frame_by_frame(Qwen3VLConfig(), (2, 1, 3))
    >>> layout.length, layout.times
    (22, 10)
    """
    steps, height, width = grid
    start, end = config.vision_start_token_id, config.vision_end_token_id
    frame = [*[TEXT] * STAMP, start, *[config.video_token_id] * (height * width), end]
    return _layout([start, *frame * steps, end], config.video_token_id)


def with_tail(config: Any, grid: Grid, tail: int) -> ClipLayout:
    """Without marks, ``tail`` placeholders at the end that belong to no frame (LLaVA-OneVision's newline).

    >>> from transformers import LlavaOnevisionConfig
    >>> layout = with_tail(LlavaOnevisionConfig(), (1, 14, 14), tail=1)
    >>> layout.length, len(layout.visual)
    (197, 196)
    """
    count = math.prod(grid)
    return ClipLayout(torch.full((count + tail,), int(config.video_token_id)), torch.arange(count))


def _layout(ids: list[int], placeholder: int) -> ClipLayout:
    made = torch.tensor(ids)
    return ClipLayout(made, (made == placeholder).nonzero().squeeze(1))
