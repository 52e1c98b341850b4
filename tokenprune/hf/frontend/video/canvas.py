# SPDX-License-Identifier: Apache-2.0
"""The sampled frames of a clip, filled one by one: each is made small before it is kept."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from tokenprune.errors import VideoError
from tokenprune.hf.frontend.video.clip import Frames
from tokenprune.hf.frontend.video.fit import Fit, Size
from tokenprune.hf.frontend.video.source import pyav

Progress = Callable[[int, int], None]
"""Called with (frames read, frames to read)."""


@dataclass(eq=False)
class Canvas:
    """Room for the samples, taken when the first frame's size is known.

    Args:
        indices: which frame of the video each sample shows, in order.
        fit: how frames are made small; None leaves them as they are.
        progress: told of each frame.
    """

    indices: Sequence[int]
    fit: Fit | None = None
    progress: Progress | None = None
    flawed: int = field(default=0, init=False)
    stood_in: int = field(default=0, init=False)
    _frames: Frames | None = field(default=None, init=False)
    _slots: dict[int, list[int]] = field(default_factory=dict[int, list[int]], init=False)
    _filled: set[int] = field(default_factory=set[int], init=False)

    def __post_init__(self) -> None:
        for slot, index in enumerate(self.indices):
            self._slots.setdefault(index, []).append(slot)

    def put(self, index: int, pixels: Frames, flawed: bool = False, stands_in: bool = False) -> None:
        """A picture ``(H, W, 3)`` for the video's frame `index`."""
        if self._frames is None:
            size: Size = (pixels.shape[0], pixels.shape[1])
            if self.fit is not None:
                size = self.fit.size(*size, len(self.indices)) or size
            self._frames = np.empty((len(self.indices), *size, 3), dtype=np.uint8)
        size = (self._frames.shape[1], self._frames.shape[2])
        if pixels.shape[:2] != size:
            pixels = _resized(pixels, size, self.fit)
        slots = self._slots[index]
        for slot in slots:
            self._frames[slot] = pixels
        self._filled.update(slots)
        self.flawed += flawed * len(slots)
        self.stood_in += stands_in * len(slots)
        if self.progress is not None:
            self.progress(len(self._filled), len(self.indices))

    def complete(self) -> Frames:
        """All samples; one without a picture gets the nearest before it, or after.

        Raises:
            VideoError: there is no picture at all.
        """
        if self._frames is None:
            raise VideoError(f"none of the {len(self.indices)} sampled frames decodes")
        there = sorted(self._filled)
        for slot in sorted(set(range(len(self.indices))) - self._filled):
            self._frames[slot] = self._frames[there[max(bisect_right(there, slot) - 1, 0)]]
            self.stood_in += 1
        return self._frames


def _resized(pixels: Frames, size: Size, fit: Fit | None) -> Frames:
    if fit is not None:
        return fit.resize(pixels, size)
    # A video that changes its size midway: a player's window keeps the first.
    return pyav().VideoFrame.from_ndarray(pixels).reformat(width=size[1], height=size[0]).to_ndarray()
