# SPDX-License-Identifier: Apache-2.0
"""What the commands say about the video they read."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenprune.runner import DamageLike, PreparedQuestion

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


def damage_of(prepared: PreparedQuestion) -> DamageLike | None:
    """What of the file was lost; None for a runner that does not say."""
    return getattr(prepared, "damage", None)


def say_damage(video: str, prepared: PreparedQuestion) -> None:
    """One plain line on stderr where something was lost."""
    damage = damage_of(prepared)
    if damage is not None:
        print(f"tokenprune: {video} is read as far as it goes: {damage}", file=sys.stderr, flush=True)
