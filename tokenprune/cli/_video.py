# SPDX-License-Identifier: Apache-2.0
"""How the commands read a video, and what they say about it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tokenprune.bench.runner import PreparedQuestion

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

_SETTLING = 1.0
"""Seconds before which no time left is guessed."""


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
