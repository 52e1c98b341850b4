# SPDX-License-Identifier: Apache-2.0
"""How the commands read a video, and what they say about it."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from tokenprune.cli._output import UsageError
from tokenprune.messages import meant, shown

if TYPE_CHECKING:
    from tokenprune.bench.runner import PreparedQuestion, VideoRunner

DEMO = "demo"
VIDEO_HELP = f"A video file, or {DEMO}: a clip that ships with tokenprune."
QUESTION_HELP = "What to ask about it."

FramesOption = Annotated[
    int | None,
    typer.Option(
        help="Frames to sample, evenly spread in time; no more than there are, an odd number is rounded down.",
        min=1,
    ),
]
FpsOption = Annotated[
    float | None,
    typer.Option(help="Frames a second to sample instead (2 where neither is given); in all at least 4, at most 768."),
]
PixelsOption = Annotated[
    int | None,
    typer.Option(help="Most pixels of a frame after resizing; long videos get less, sides are whole visual tokens."),
]

_SETTLING = 1.0
"""Seconds before which no time left is guessed."""


@dataclass(frozen=True)
class Sampling:
    """What is read of a video.

    Raises:
        UsageError: a number of frames together with a rate, or a value that none can have.
    """

    frames: FramesOption = None
    fps: FpsOption = None
    max_pixels: PixelsOption = None

    def __post_init__(self) -> None:
        if self.max_pixels is not None and self.max_pixels < 1:
            raise UsageError(f"--max-pixels must be at least 1, got {shown(self.max_pixels)}")
        if self.frames is not None and self.fps is not None:
            raise UsageError("choose one of --frames and --fps")
        if self.fps is not None and not (math.isfinite(self.fps) and self.fps > 0):
            raise UsageError(f"--fps must be a number above 0, got {self.fps}")


def check_question(question: str) -> None:
    """Raise :class:`UsageError` for an empty question."""
    if not question.strip():
        raise UsageError("QUESTION must not be empty")


def video_path(video: str, runner: VideoRunner) -> str:
    """Where the video is, looked for before a large model is loaded.

    Raises:
        VideoError: it is not there.
    """
    from tokenprune.bench.demo import demo_clip
    from tokenprune.files import video_place

    place = demo_clip(runner) if video == DEMO else video
    return str(video_place(place, meant(place, [DEMO])))


def reading(say: Callable[[str], None], now: Callable[[], float] = time.monotonic) -> Callable[[int, int], None]:
    """What is called with (frames read, frames to read), and says so with the time that is left."""
    start = now()

    def told(done: int, total: int) -> None:
        spent = now() - start
        left = f", {spent * (total - done) / done:.0f} s left" if done and spent > _SETTLING else ""
        say(f"reading the video: {done} of {total} frames{left}")

    return told


def say_damage(video: str, prepared: PreparedQuestion) -> None:
    """One plain line on stderr where something was lost."""
    from tokenprune.bench.runner import damage_of

    damage = damage_of(prepared)
    if damage is not None:
        print(f"tokenprune: {video} is read as far as it goes: {damage}", file=sys.stderr, flush=True)
