# SPDX-License-Identifier: Apache-2.0
"""Pictures as videos: folders and lists of them, animated ones, and a single one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from tokenprune.errors import VideoError
from tokenprune.hf.frontend.video.clip import Frames
from tokenprune.hf.frontend.video.sampling import DEFAULT_FPS, even

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
# GIFs are left to FFmpeg, and so are JPEGs one after the other.
_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*")
_ANIMATED = ("PNG", "WEBP", "GIF")
_SHORTEST = 20
_USUAL = 100
"""Milliseconds that browsers show a frame whose own time is shorter than the one above."""


@dataclass(frozen=True)
class Pictures:
    """Pictures that are shown one after the other.

    Args:
        starts: seconds at which each is shown.
        duration: when the last one is over.
        rate: pictures a second where they come evenly.
        whole: all are meant to be seen, unless something else is asked for.
        read: the pixels ``(H, W, 3)`` of these, in order.
    """

    starts: tuple[Fraction, ...]
    duration: Fraction
    rate: Fraction | None
    whole: bool
    read: Callable[[Sequence[int]], Iterator[tuple[int, Frames]]]

    @classmethod
    def of_list(cls, sources: Sequence[Any], fps: float) -> Pictures:
        """Files or PIL images, `fps` a second."""
        if not sources:
            raise VideoError("a list of pictures must hold at least one")
        rate = Fraction(fps)
        starts = tuple(index / rate for index in range(len(sources)))
        return cls(starts, len(sources) / rate, rate, True, lambda wanted: _read_each(sources, wanted))

    @classmethod
    def of_folder(cls, folder: Path, fps: float) -> Pictures:
        """The pictures in a folder, sorted by name with its numbers as numbers."""
        found = [each for each in folder.iterdir() if each.suffix.lower() in SUFFIXES and not each.name.startswith(".")]
        if not found:
            raise VideoError(f"not a video file, and a folder without pictures: {folder}")
        return cls.of_list(sorted(found, key=_natural), fps)

    @classmethod
    def of_file(cls, path: Path) -> Pictures | None:
        """One picture file, animated or not; None for every other file."""
        with path.open("rb") as file:
            head = file.read(12)
        webp = head[:4] == b"RIFF" and head[8:] == b"WEBP"
        if not (webp or head.startswith(_STARTS)) or path.suffix.lower() in (".mjpg", ".mjpeg"):
            return None
        with _opened(path) as image:
            count = int(getattr(image, "n_frames", 1)) if image.format in _ANIMATED else 1
            if count == 1:
                return cls.of_list([path], DEFAULT_FPS)
            lengths = [_length(image, frame) for frame in range(count)]
        starts = tuple(Fraction(start, 1000) for start in accumulate([0, *lengths[:-1]]))
        duration = Fraction(sum(lengths), 1000)
        rate = count / duration if even(starts, duration, count / duration) else None
        return cls(starts, duration, rate, False, lambda wanted: _read_animated(path, wanted))


def _read_each(sources: Sequence[Any], wanted: Sequence[int]) -> Iterator[tuple[int, Frames]]:
    first: tuple[int, ...] | None = None
    for index in wanted:
        with _opened(sources[index]) as image:
            pixels = _pixels(image, sources[index])
        first = first or pixels.shape
        if pixels.shape != first:
            raise VideoError(
                f"pictures of one video must have one size, got {first[1]}x{first[0]} and "
                f"{pixels.shape[1]}x{pixels.shape[0]}: {sources[index]}"
            )
        yield index, pixels


def _read_animated(path: Path, wanted: Sequence[int]) -> Iterator[tuple[int, Frames]]:
    with _opened(path) as image:
        for index in wanted:
            image.seek(index)
            yield index, _pixels(image, path)


def _opened(source: Any) -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise VideoError('reading pictures needs Pillow: pip install "tokenprune-vlm[qwen25vl]"') from error
    if isinstance(source, Image.Image):
        return source.copy()
    try:
        return Image.open(source)
    except FileNotFoundError as error:
        raise VideoError(f"no such picture: {source}") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoError(f"cannot read {source} as a picture: {error}") from error


def _pixels(image: Any, source: Any) -> Frames:
    """RGB, upright as its camera says."""
    from PIL import Image, ImageOps

    try:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip at 255
            upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
        return np.asarray(upright.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoError(f"cannot read {source} as a picture: {error}") from error


def _length(image: Any, frame: int) -> int:
    """Milliseconds."""
    image.seek(frame)
    if image.format == "WEBP":  # Pillow knows its times only then
        image.load()
    length = round(float(image.info.get("duration", 0)))
    return length if length >= _SHORTEST else _USUAL


def _natural(path: Path) -> list[tuple[int, str]]:
    """Key by which ``frame2`` comes before ``frame10``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name.lower())]
