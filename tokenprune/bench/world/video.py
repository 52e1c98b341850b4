# SPDX-License-Identifier: Apache-2.0
"""Clips as .mp4 files, and as what is left of them after one."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tokenprune.bench.world.clip import Clip
from tokenprune.bench.world.palette import FPS
from tokenprune.bench.world.render import Frames

QUALITY = 18
"""Constant rate factor of H.264: lower is better, 18 is hard to tell from the source."""


def write_mp4(clip: Clip, path: str | Path) -> Path:
    """Writes a clip as H.264 in 4:2:0 at `FPS` frames per second, whole or not at all; returns the path.

    Raises:
        ImportError: PyAV is not installed.
    """
    target = Path(path)
    fresh = target.with_name(f"{target.name}.{os.getpid()}.new")
    try:
        with fresh.open("wb") as file:
            encode(clip.frames, file, QUALITY)
        os.replace(fresh, target)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    return target


def through_mp4(frames: Frames, quality: int = QUALITY) -> Frames:
    """Frames as they come back from an .mp4 file of this quality, same shape."""
    buffer = io.BytesIO()
    encode(frames, buffer, quality)
    buffer.seek(0)
    return np.stack(list(_decode(buffer)))


def encode(frames: Frames, file: BinaryIO, quality: int) -> None:
    """Writes frames `(T, H, W, 3)` to an open file as H.264 in an .mp4 container."""
    import av

    with av.open(file, mode="w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": str(quality), "preset": "veryfast"}
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _decode(file: BinaryIO) -> Iterator[Frames]:
    import av

    with av.open(file) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")
