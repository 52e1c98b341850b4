# SPDX-License-Identifier: Apache-2.0
"""A path, or several, to a clip."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from tokenprune.errors import VideoError
from tokenprune.files import video_place
from tokenprune.hf.frontend.video.canvas import Canvas, Progress
from tokenprune.hf.frontend.video.clip import Damage, VideoClip
from tokenprune.hf.frontend.video.decode import decode
from tokenprune.hf.frontend.video.fit import Fit
from tokenprune.hf.frontend.video.pictures import Pictures
from tokenprune.hf.frontend.video.sampling import (
    DEFAULT_FPS,
    MAX_FRAMES,
    MIN_FRAMES,
    SampleRequest,
    check_fps,
    shown_at,
    spread,
)
from tokenprune.hf.frontend.video.timeline import read_timeline


def load_clip(
    path: str | Path | Sequence[Any],
    *,
    frames: int | None = None,
    fps: float | None = None,
    min_frames: int = MIN_FRAMES,
    max_frames: int = MAX_FRAMES,
    pictures_fps: float = DEFAULT_FPS,
    fit: Fit | None = None,
    progress: Progress | None = None,
) -> VideoClip:
    """Read sampled frames of a local video: what a player shows at evenly spaced moments.

    >>> from tokenprune_qwen25vl import demo_clip
    >>> load_clip(demo_clip(), frames=4).times
    (0.0, 2.0, 4.0, 6.0)

    Args:
        path: a video file; a folder of pictures, in the order 1, 2, 10; a list of picture files or PIL images; or one
            picture (a video of one frame, or of several where it is animated). Network addresses are not fetched.
        frames: so many frames, or all where there are fewer; an odd number is rounded down (but 1 stays 1).
        fps: so many frames a second instead; 2 where neither is given, and all of a folder or list.
        min_frames: at least so many frames with `fps`, where the video has them.
        max_frames: at most so many frames with `fps`.
        pictures_fps: pictures a second that a folder or list holds.
        fit: makes frames small while they are read; see :class:`tokenprune.hf.frontend.video.ProcessorFit`.
        progress: called with (frames read, frames to read).

    Raises:
        VideoError: there is nothing that can be read, or PyAV or Pillow is not installed. Of a file that can be read in
            part, the clip's ``damage`` says what is missing.
        InvalidValueError: `frames` and `fps` are both given, or a number is out of range.
    """
    request = SampleRequest(frames, fps, min_frames, max_frames)
    check_fps(pictures_fps)
    if not isinstance(path, (str, Path)):
        return _of_pictures(Pictures.of_list(path, pictures_fps), request, fit, progress)
    place = video_place(path)
    if place.is_dir():
        return _of_pictures(Pictures.of_folder(place, pictures_fps), request, fit, progress)
    if not place.is_file():
        raise VideoError(f"not a video file: {path}")
    if place.stat().st_size == 0:
        raise VideoError(f"video file is empty: {path}")
    pictures = Pictures.of_file(place)
    if pictures is not None:
        return _of_pictures(pictures, request, fit, progress)
    return _of_file(place, request, fit, progress)


def _of_file(path: Path, request: SampleRequest, fit: Fit | None, progress: Progress | None) -> VideoClip:
    timeline = read_timeline(path)
    total = len(timeline.order)
    indices, times = _chosen(timeline.starts, timeline.duration, timeline.rate, request)
    canvas = decode(path, timeline, indices, fit, progress)
    try:
        pixels = canvas.complete()
    except VideoError as error:
        raise VideoError(f"video file is {'cut off' if timeline.cut_off else 'damaged'}: {path}: {error}") from None
    damage = Damage(timeline.cut_off, total, timeline.missing, canvas.stood_in, canvas.flawed)
    return VideoClip(pixels, indices, total, float(total / timeline.duration), times, damage or None)


def _of_pictures(pictures: Pictures, request: SampleRequest, fit: Fit | None, progress: Progress | None) -> VideoClip:
    total, rate = len(pictures.starts), pictures.rate
    if pictures.whole and request.frames is None and request.fps is None:
        indices = spread(total, min(total, request.max_frames))
        times = tuple(float(pictures.starts[index]) for index in indices)
    else:
        indices, times = _chosen(pictures.starts, pictures.duration, rate, request)
    canvas = Canvas(indices, fit, progress)
    for index, pixels in pictures.read(sorted(set(indices))):
        canvas.put(index, pixels)
    return VideoClip(canvas.complete(), indices, total, float(total / pictures.duration), times)


def _chosen(
    starts: Sequence[Fraction], duration: Fraction, rate: Fraction | None, request: SampleRequest
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Frames and their times; where frames come evenly, by counting them, which no rounding of times disturbs."""
    count = request.count(len(starts), float(duration))
    if rate is None:
        return shown_at(starts, duration, count)
    indices = spread(len(starts), count)
    return indices, tuple(float(index / rate) for index in indices)
