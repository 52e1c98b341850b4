# SPDX-License-Identifier: Apache-2.0
"""A question about a video, and its answer with what it cost: the values that front ends give and offices count."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tokenprune.history import SpanHistory


class ReportLike(Protocol):
    """What a session measured; see :attr:`Session.report`."""

    @property
    def spans(self) -> Sequence[Sequence[SpanHistory]]: ...

    def to_dict(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class ClipQuestion:
    """A question about one video file.

    >>> ClipQuestion("video.mp4", "What moves?", frames=8).frames
    8

    Args:
        video: path of the file.
        question: what is asked.
        system: system prompt; None is the model's own.
        frames: frames to sample, evenly spread.
        fps: or frames a second; where neither is given the adapter's own default.
        max_pixels: largest frame after resizing, in pixels; None is what the model's processor says.
        progress: called with (frames read, frames to read) while the video is read.
    """

    video: str
    question: str
    system: str | None = None
    frames: int | None = None
    fps: float | None = None
    max_pixels: int | None = None
    progress: Callable[[int, int], None] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, eq=False)
class Answer:
    """A greedy answer, and what it cost.

    >>> said = Answer("left", (1520, 2), None, 0.1, prefill_seconds=0.2, decode_seconds=0.1, peak_memory_bytes=None)
    >>> said.text, len(said.token_ids)
    ('left', 2)

    Args:
        text: the answer without special tokens.
        token_ids: the generated tokens.
        report: what was pruned; None for the plain model.
        vision_seconds: time in the vision tower.
        prefill_seconds: from the start to the first new token, without the vision tower; pruning is part of it.
        decode_seconds: from the first new token to the last.
        peak_memory_bytes: most device memory held meanwhile; None where it is not known (CPU).
    """

    text: str
    token_ids: tuple[int, ...]
    report: ReportLike | None
    vision_seconds: float
    prefill_seconds: float
    decode_seconds: float
    peak_memory_bytes: int | None


class DamageLike(Protocol):
    """What of a video file could not be read; as a text one plain line."""

    def to_dict(self) -> Mapping[str, Any]: ...
