# SPDX-License-Identifier: Apache-2.0
"""How many frames are sampled, and which: evenly spread over the time that a video lasts."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from tokenprune.errors import InvalidValueError

DEFAULT_FPS = 2.0
"""Frames a second that are sampled where nothing else is asked for."""
MIN_FRAMES = 4
MAX_FRAMES = 768
FRAME_FACTOR = 2
"""Frames come in pairs: one visual token covers two."""

_ROUNDING = Fraction(1, 2000)  # containers that count in milliseconds put a frame up to so much after its moment


@dataclass(frozen=True)
class SampleRequest:
    """How many frames are asked for.

    Args:
        frames: so many, or all where there are fewer; an odd number is rounded down (but 1 stays 1).
        fps: or so many a second, with the two bounds below.
        min_frames: lower bound with `fps`, where the video has them.
        max_frames: upper bound with `fps`.
    """

    frames: int | None = None
    fps: float | None = None
    min_frames: int = MIN_FRAMES
    max_frames: int = MAX_FRAMES

    def __post_init__(self) -> None:
        if self.frames is not None and self.fps is not None:
            raise InvalidValueError(f"give frames or fps, not both (got frames={self.frames!r}, fps={self.fps!r})")
        if self.fps is not None:
            check_fps(self.fps)
        for name in ("frames", "min_frames", "max_frames"):
            value = getattr(self, name)
            if value is None and name == "frames":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidValueError(f"{name} must be a whole number of at least 1, got {value!r}")

    def count(self, total: int, duration: float) -> int:
        """Frames that are sampled of `total` that last `duration` seconds: even, except for one."""
        if self.frames is not None:
            wanted = float(self.frames)
        else:
            rate = DEFAULT_FPS if self.fps is None else self.fps
            wanted = min(max(duration * rate + 1e-9, self.min_frames), self.max_frames)
        count = max(int(min(wanted, total)), 1)
        return count - count % FRAME_FACTOR if count > 1 else count


def sample_indices(
    total: int,
    native_fps: float,
    *,
    frames: int | None = None,
    fps: float | None = None,
    min_frames: int = MIN_FRAMES,
    max_frames: int = MAX_FRAMES,
) -> tuple[int, ...]:
    """Which of `total` evenly timed frames are sampled; how many is said by :class:`SampleRequest`.

    Args:
        total: frames of the video, at least 1.
        native_fps: its frames a second.
        frames: so many, or all where there are fewer.
        fps: or so many a second; 2 where neither is given.
        min_frames: lower bound with `fps`.
        max_frames: upper bound with `fps`.
    """
    return spread(total, SampleRequest(frames, fps, min_frames, max_frames).count(total, total / native_fps))


def spread(total: int, count: int) -> tuple[int, ...]:
    """`count` of `total` places, evenly spread.

    >>> spread(10, 4)
    (0, 2, 5, 7)
    """
    return tuple(place * total // count for place in range(count))


def shown_at(starts: Sequence[Fraction], duration: Fraction, count: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Which frame a player shows at each of `count` evenly spaced moments, and these moments in seconds.

    Args:
        starts: when each frame is shown, in seconds from the first, increasing.
        duration: when the last one is over.
        count: moments; the first is 0.

    >>> shown_at([Fraction(0), Fraction(1), Fraction(9)], Fraction(10), 5)
    ((0, 1, 1, 1, 1), (0.0, 2.0, 4.0, 6.0, 8.0))
    """
    moments = [duration * place / count for place in range(count)]
    indices = tuple(max(bisect_right(starts, moment + _ROUNDING) - 1, 0) for moment in moments)
    return indices, tuple(float(moment) for moment in moments)


def even(starts: Sequence[Fraction], duration: Fraction, rate: Fraction) -> bool:
    """Whether frames come evenly at this rate: none is further than half a frame from its place, nor the end than one.

    >>> even([Fraction(0), Fraction(1, 2)], Fraction(1), Fraction(2))
    True
    """
    within = all(2 * abs(start * rate - frame) <= 1 for frame, start in enumerate(starts))
    return within and abs(duration * rate - len(starts)) <= 1


def check_fps(fps: float) -> float:
    """The rate, if it is one."""
    if isinstance(fps, bool) or not isinstance(fps, (int, float)) or not (math.isfinite(fps) and fps > 0):
        raise InvalidValueError(f"fps must be a number above 0, got {fps!r}")
    return float(fps)
