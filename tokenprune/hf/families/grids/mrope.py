# SPDX-License-Identifier: Apache-2.0
"""Grids that M-RoPE positions tell: each run of placeholders stands on a (T, H, W) grid of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tokenprune.adapter import Prompt, VisualSpan
from tokenprune.errors import UnsupportedModeError
from tokenprune.hf.families.grids import Placeholders, unreadable
from tokenprune.hf.placeholders import PlaceholderRun, placeholder_runs


@dataclass(frozen=True)
class MropeRuns:
    """A video or image is one run (Qwen2-VL, Qwen2.5-VL, Ernie 4.5 VL)."""

    def spans(self, prompt: Prompt, ids: Placeholders, config: Any) -> list[list[VisualSpan]]:
        runs = placeholder_runs(prompt, ids)
        return mrope_spans(prompt, runs)


@dataclass(frozen=True)
class MropeRunsBesideAudio:
    """The same where audio may stand in the prompt as well (Qwen-Omni), but not inside a video.

    Audio of a video is written between its frames, second by second: each piece of the video would be read as a video
    of its own.
    """

    def spans(self, prompt: Prompt, ids: Placeholders, config: Any) -> list[list[VisualSpan]]:
        runs = placeholder_runs(prompt, ids)
        audio = int(config.audio_token_id)
        for run in (run for row in runs for run in row):
            beside = prompt.input_ids[run.row, max(run.start - 1, 0) : run.stop + 1]
            if run.modality == "video" and bool((beside == audio).any()):
                raise unreadable(run, "stand directly beside audio", "give a video's audio before it or after it")
        return mrope_spans(prompt, runs)


def mrope_spans(prompt: Prompt, runs: Sequence[Sequence[PlaceholderRun]]) -> list[list[VisualSpan]]:
    """Each run as a span of its own.

    H and W are the spans of the run's h and w positions, T is what is left; raster order is checked position by
    position, because a run whose positions do not form a grid would be pruned at the wrong places.

    Raises:
        UnsupportedModeError: there are visual tokens without M-RoPE positions (``mm_token_type_ids`` missing: the
            library then silently counts in one dimension), or positions that form no grid.
    """
    if not any(runs):
        return [[] for _ in runs]
    if prompt.position_ids is None or prompt.position_ids.ndim != 3:
        raise UnsupportedModeError(
            "the prompt has visual tokens but no M-RoPE positions; pass all that the processor makes (attention_mask, "
            "mm_token_type_ids, grids)"
        )
    positions = prompt.position_ids[-3:].cpu().expand(3, len(runs), -1)
    return [[_span(run, positions[:, run.row, run.start : run.stop]) for run in row] for row in runs]


def _span(run: PlaceholderRun, positions: Tensor) -> VisualSpan:
    count = len(run)
    time, height, width = (axis - axis.min() for axis in positions)
    rows, columns = int(height.max()) + 1, int(width.max()) + 1
    frames, rest = divmod(count, rows * columns)
    cell = height * columns + width
    in_raster_order = rest == 0 and bool((cell.view(frames, -1) == cell.new_ones(rows * columns).cumsum(0) - 1).all())
    if not in_raster_order or not bool((time.view(frames, -1) == time.view(frames, -1)[:, :1]).all()):
        raise unreadable(
            run,
            "do not stand on a (T, H, W) grid of M-RoPE positions",
            "pass the processor's mm_token_type_ids and grids, put text between two videos",
        )
    return VisualSpan(run.modality, (frames, rows, columns), torch.arange(run.start, run.stop, device="cpu"))
