# SPDX-License-Identifier: Apache-2.0
"""Small video files of every kind that is hard to read rightly."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

HEIGHT, WIDTH = 64, 96
ONE = 1 << 16


def grey(level: float, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.full((height, width, 3), round(level), dtype=np.uint8)


def noisy(level: float) -> np.ndarray:
    """Costs some bytes a frame, so that a cut or a fault meets pictures and no headers."""
    noise = np.random.default_rng(round(level)).integers(-20, 20, (HEIGHT, WIDTH, 3))
    return (grey(level) + noise).clip(0, 255).astype(np.uint8)


def write(
    path: Path,
    frames: Sequence[np.ndarray],
    times: Sequence[float] | None = None,
    *,
    codec: str = "libx264",
    fps: int = 25,
    pix_fmt: str = "yuv420p",
    gop: int = 10,
    tick: Fraction = Fraction(1, 1000),
    shift: float = 0.0,
    options: dict[str, str] | None = None,
) -> Path:
    """Encode frames, evenly or at these seconds; `shift` moves all times in the container."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.gop_size = pix_fmt, gop
        if times is not None:
            stream.codec_context.time_base = tick

        def mux(packets: Sequence[av.Packet]) -> None:
            for packet in packets:
                if shift:
                    ticks = round(shift / packet.time_base)
                    packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
                container.mux(packet)

        for place, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(times[place] / tick), tick
            mux(stream.encode(frame))
        mux(stream.encode())
    return path


def with_matrix(path: Path, a: int, b: int, c: int, d: int) -> Path:
    """Write a display matrix into an MP4's track header."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40  # version and flags, times, id, duration, layer, volume
    data[place : place + 36] = struct.pack(">9i", a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30)
    path.write_bytes(bytes(data))
    return path


def changed(path: Path, change: Callable[[bytearray], bytes | bytearray]) -> Path:
    """The file with its bytes changed."""
    path.write_bytes(bytes(change(bytearray(path.read_bytes()))))
    return path


def cut(share: float) -> Callable[[bytearray], bytearray]:
    return lambda data: data[: int(len(data) * share)]


def zeroed(start: float, stop: float) -> Callable[[bytearray], bytearray]:
    def change(data: bytearray) -> bytearray:
        first, last = int(len(data) * start), int(len(data) * stop)
        data[first:last] = bytes(last - first)
        return data

    return change
