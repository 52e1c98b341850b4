# SPDX-License-Identifier: Apache-2.0
"""What a reader hands on: sampled frames, their times, and what of the file was lost."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from tokenprune.errors import InvalidValueError
from tokenprune.hf.frontend.video.sampling import DEFAULT_FPS, check_fps

Frames = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Damage:
    """What of a video file could not be read; where there is none, a clip has no such record.

    Args:
        cut_off: the file ends before its container says it does.
        found: frames of the video that are in the file.
        missing: about how many are not, as far as the container tells; 0 where it does not.
        stand_ins: sampled frames that do not decode: an earlier picture stands in, as in a player that freezes
            (a later one where there is none earlier).
        flawed: sampled frames that decode with visible faults, or may.
    """

    cut_off: bool = False
    found: int = 0
    missing: int = 0
    stand_ins: int = 0
    flawed: int = 0

    def __str__(self) -> str:
        parts: list[str] = []
        if self.cut_off:
            parts.append("the file is cut off")
        if self.missing:
            parts.append(f"about {self.missing} of its {self.found + self.missing} frames are missing")
        if self.stand_ins:
            parts.append(f"sampled frames that do not decode, so that a neighbour stands in: {self.stand_ins}")
        if self.flawed:
            parts.append(f"sampled frames with faults: {self.flawed}")
        return ", ".join(parts)

    def to_dict(self) -> dict[str, bool | int]:
        """JSON-ready."""
        return asdict(self)

    def __bool__(self) -> bool:
        return self.cut_off or bool(self.missing or self.stand_ins or self.flawed)


@dataclass(frozen=True, eq=False)
class VideoClip:
    """Sampled frames of one video.

    >>> VideoClip(np.zeros((4, 8, 8, 3), np.uint8), indices=(0, 2, 4, 6), total_frames=8, fps=4.0).times
    (0.0, 0.5, 1.0, 1.5)

    Args:
        frames: ``(N, H, W, 3)`` uint8, RGB, upright.
        indices: which frames of the video these are, in order; one that is shown for long may come several times.
        total_frames: frames of the whole video.
        fps: frames a second of the whole video, the mean where they come unevenly: it lasts ``total_frames / fps``.
        times: seconds from the video's first frame at which each is shown; ``index / fps`` where none are given.
        damage: what of the file was lost; None where nothing was.
    """

    frames: Frames
    indices: tuple[int, ...]
    total_frames: int
    fps: float
    times: tuple[float, ...] = ()
    damage: Damage | None = None

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.shape[-1] != 3 or self.frames.dtype != np.uint8:
            raise InvalidValueError(
                f"frames must be (N, H, W, 3) uint8, got {tuple(self.frames.shape)} {self.frames.dtype}"
            )
        if len(self.frames) == 0 or len(self.indices) != len(self.frames):
            raise InvalidValueError(f"a clip needs one index a frame, got {len(self.indices)} for {len(self.frames)}")
        check_fps(self.fps)
        if not self.times:
            object.__setattr__(self, "times", tuple(index / self.fps for index in self.indices))
        if len(self.times) != len(self.frames):
            raise InvalidValueError(f"a clip needs one time a frame, got {len(self.times)} for {len(self.frames)}")

    @property
    def duration(self) -> float:
        """Seconds that the whole video lasts."""
        return self.total_frames / self.fps

    @classmethod
    def from_frames(cls, frames: Frames, fps: float = DEFAULT_FPS) -> VideoClip:
        """A clip of all these frames, shown at `fps` frames a second.

        >>> VideoClip.from_frames(np.zeros((4, 56, 56, 3), np.uint8), fps=2.0).times
        (0.0, 0.5, 1.0, 1.5)
        """
        return cls(frames, tuple(range(len(frames))), len(frames), float(fps))
