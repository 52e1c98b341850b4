# SPDX-License-Identifier: Apache-2.0
"""Videos whose frames stand apart, with a timestamp between them: each frame is a run with M-RoPE positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tokenprune.adapter import Prompt, VisualSpan
from tokenprune.hf.families.grids import Placeholders, unreadable, whole_span
from tokenprune.hf.families.grids.mrope import mrope_spans
from tokenprune.hf.placeholders import PlaceholderRun, placeholder_runs

LONGER_TIME = 2
"""So many ids more than the first may a later timestamp of the same video have: 9.5 grows to 10.0, to 100.0."""
LONGEST_TIME = 12
"""No timestamp has more ids: every digit of ``<12345.6 seconds>`` is one."""

Frame = tuple[PlaceholderRun, VisualSpan]


@dataclass(frozen=True)
class TimestampedFrames:
    """``<t seconds><start>P*n<end>`` for each frame of a video, with or without a pair of start and end around all.

    A frame goes on with the video before it if nothing but one timestamp stands between them. With the outer pair two
    videos that follow each other have more ends and starts between them; without it a new video is told by other text
    before its first timestamp, or by the timestamp that the first one began with.

    Args:
        start: name in the config of the id before each frame.
        end: and of the one after it.
    """

    start: str = "vision_start_token_id"
    end: str = "vision_end_token_id"

    def spans(self, prompt: Prompt, ids: Placeholders, config: Any) -> list[list[VisualSpan]]:
        runs = placeholder_runs(prompt, ids)
        marks = (int(getattr(config, self.start)), int(getattr(config, self.end)))
        found: list[list[VisualSpan]] = []
        for row, spans in zip(runs, mrope_spans(prompt, runs)):
            text = prompt.input_ids[row[0].row].tolist() if row else []
            groups: list[list[Frame]] = []
            for frame in zip(row, spans):
                if not groups or not _goes_on(groups[-1], frame, text, marks):
                    groups.append([])
                groups[-1].append(frame)
            found.append([joined(group) for group in groups])
        return found


@dataclass(frozen=True)
class BoundedFrames:
    """``<video_start> (<image_start>P*n<image_end> t)* <video_end>``: all runs between the two are one video's frames.

    Elsewhere the same placeholder stands for an image (GLM).

    Args:
        start: name in the config of the id before a video.
        end: and of the one after it.
    """

    start: str = "video_start_token_id"
    end: str = "video_end_token_id"

    def spans(self, prompt: Prompt, ids: Placeholders, config: Any) -> list[list[VisualSpan]]:
        runs = placeholder_runs(prompt, ids)
        opening, closing = int(getattr(config, self.start)), int(getattr(config, self.end))
        found: list[list[VisualSpan]] = []
        for row, spans in zip(runs, mrope_spans(prompt, runs)):
            text = prompt.input_ids[row[0].row] if row else torch.zeros(0)
            opened = ((text == opening).cumsum(0) - (text == closing).cumsum(0)).tolist()
            number = (text == opening).cumsum(0).tolist()
            videos: dict[int, list[Frame]] = {}
            for run, span in zip(row, spans):
                inside = opened[run.start] > 0
                videos.setdefault(number[run.start] if inside else -1 - run.start, []).append((run, span))
            found.append([joined(group, "video" if key >= 0 else "image") for key, group in videos.items()])
        return found


def joined(frames: Sequence[Frame], modality: str | None = None) -> VisualSpan:
    """Frames of one size as one video.

    Raises:
        UnsupportedModeError: a frame has another size than the first, or is no single frame.
    """
    runs, spans = [run for run, _ in frames], [span for _, span in frames]
    first = spans[0]
    modality = first.modality if modality is None else modality
    if len(spans) == 1:
        return VisualSpan(modality, first.grid, first.columns)
    for run, span in frames:
        if span.grid[0] != 1 or span.grid != first.grid:
            raise unreadable(run, f"stand on a grid {span.grid}, the first frame of the video on {first.grid}")
    return whole_span(runs, (len(runs), *first.grid[1:]), modality)


def _goes_on(video: Sequence[Frame], frame: Frame, ids: Sequence[int], marks: tuple[int, int]) -> bool:
    """Whether the frame belongs to the video that the last one belonged to."""
    (first, kind), (last, _), (run, span) = video[0], video[-1], frame
    start, end = marks
    if not span.modality == kind.modality == "video" or span.grid != kind.grid:
        return False
    between = ids[last.stop : run.start]
    if len(between) < 3 or (between[0], between[-1]) != (end, start):
        return False
    time = between[1:-1]
    if start in time or end in time or len(time) > LONGEST_TIME:
        return False
    if len(video) > 1 and len(time) > video[1][0].start - first.stop - 2 + LONGER_TIME:
        return False  # other text comes first
    return ids[first.start - 1 - len(time) : first.start - 1] != time  # the clock begins anew
