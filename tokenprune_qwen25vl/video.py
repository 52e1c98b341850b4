# SPDX-License-Identifier: Apache-2.0
"""Video files to frames: which frames Qwen2.5-VL is shown, and what can be wrong with a file."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tokenprune.errors import InvalidValueError, VideoError

DEFAULT_FPS = 2.0
"""Frames a second that Qwen2.5-VL samples where nothing else is asked for."""
MIN_FRAMES = 4
MAX_FRAMES = 768
FRAME_FACTOR = 2
"""Frames come in pairs: one visual token covers two."""

# FFmpeg also "decodes" these: a text file as terminal art, a picture as one frame, a playlist as the files it names.
_NOT_A_VIDEO = ("tty", "image2", "concat", "hls", "dash", "sdp", "lavfi")

Frames = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class VideoClip:
    """Sampled frames of one video.

    Args:
        frames: ``(N, H, W, 3)`` uint8, RGB.
        indices: which frames of the video these are, increasing.
        total_frames: frames of the whole video.
        fps: frames a second of the whole video; with `indices` it gives the sampled frames their times.
    """

    frames: Frames
    indices: tuple[int, ...]
    total_frames: int
    fps: float

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.shape[-1] != 3 or self.frames.dtype != np.uint8:
            raise InvalidValueError(
                f"frames must be (N, H, W, 3) uint8, got {tuple(self.frames.shape)} {self.frames.dtype}"
            )
        if len(self.frames) == 0 or len(self.indices) != len(self.frames):
            raise InvalidValueError(f"a clip needs one index a frame, got {len(self.indices)} for {len(self.frames)}")
        _check_fps(self.fps)

    @classmethod
    def from_frames(cls, frames: Frames, fps: float = DEFAULT_FPS) -> VideoClip:
        """A clip of all these frames, shown at `fps` frames a second."""
        return cls(frames, tuple(range(len(frames))), len(frames), float(fps))


def load_clip(
    path: str | Path,
    *,
    frames: int | None = None,
    fps: float | None = None,
    min_frames: int = MIN_FRAMES,
    max_frames: int = MAX_FRAMES,
) -> VideoClip:
    """Read the sampled frames of a local video file.

    Args:
        path: a file; addresses on the network are not fetched.
        frames: so many frames, evenly spread; see :func:`sample_indices`.
        fps: so many frames a second instead; 2 where neither is given.
        min_frames: at least so many frames with `fps`, where the video has them.
        max_frames: at most so many frames with `fps`.

    Raises:
        VideoError: the file is missing, empty, cut off, no video or an unreadable one, or PyAV is not installed.
        InvalidValueError: `frames` and `fps` are both given, or out of range.
    """
    if frames is not None and fps is not None:
        raise InvalidValueError(f"give frames or fps, not both (got frames={frames!r}, fps={fps!r})")
    file = Path(path)
    if not file.exists():
        raise VideoError(f"no such video file: {path}")
    if not file.is_file():
        raise VideoError(f"not a video file: {path}")
    if file.stat().st_size == 0:
        raise VideoError(f"video file is empty: {path}")
    total, native_fps = _inspect(file)
    indices = sample_indices(total, native_fps, frames=frames, fps=fps, min_frames=min_frames, max_frames=max_frames)
    return VideoClip(_decode(file, indices), indices, total, native_fps)


def sample_indices(
    total: int,
    native_fps: float,
    *,
    frames: int | None = None,
    fps: float | None = None,
    min_frames: int = MIN_FRAMES,
    max_frames: int = MAX_FRAMES,
) -> tuple[int, ...]:
    """Which of `total` frames are sampled: evenly spread, an even number of them except for a video of one frame.

    Args:
        total: frames of the video, at least 1.
        native_fps: its frames a second.
        frames: how many to take, or all where there are fewer; an odd number is rounded down (but 1 stays 1).
        fps: or how many a second, 2 where neither is given, with `min_frames` and `max_frames` as bounds.
        min_frames: lower bound with `fps`.
        max_frames: upper bound with `fps`.
    """
    if frames is not None:
        if isinstance(frames, bool) or not isinstance(frames, int) or frames < 1:
            raise InvalidValueError(f"frames must be a whole number of at least 1, got {frames!r}")
        wanted = float(frames)
    else:
        rate = DEFAULT_FPS if fps is None else _check_fps(fps)
        wanted = min(max(total / native_fps * rate, min_frames), max_frames)
    count = int(min(wanted, total))
    if count > 1:
        count -= count % FRAME_FACTOR
    return tuple(i * total // count for i in range(count))


def _check_fps(fps: float) -> float:
    if isinstance(fps, bool) or not isinstance(fps, (int, float)) or not (math.isfinite(fps) and fps > 0):
        raise InvalidValueError(f"fps must be a number above 0, got {fps!r}")
    return float(fps)


def _inspect(path: Path) -> tuple[int, float]:
    """Frames and frames a second, by walking over the packets: some containers do not say, and cut files lie."""
    av = _pyav()
    try:
        with av.open(str(path)) as container:
            formats = set(container.format.name.split(","))
            if formats & set(_NOT_A_VIDEO) or any(name.endswith("_pipe") for name in formats):
                raise VideoError(f"not a video file (it reads as {container.format.name}): {path}")
            if not container.streams.video:
                raise VideoError(f"file has no video in it: {path}")
            stream = container.streams.video[0]
            promised, rate = int(stream.frames), stream.average_rate
            found = sum(1 for packet in container.demux(stream) if packet.size)
    except (av.error.FFmpegError, ValueError) as error:
        raise VideoError(f"cannot read {path} as a video, it is damaged, cut off or something else: {error}") from error
    if found < promised:
        raise VideoError(f"video file is cut off: {path} holds {found} of its {promised} frames")
    if found == 0 or not rate:
        raise VideoError(f"video has no frames or no frame rate: {path}")
    return found, float(rate)


def _decode(path: Path, indices: tuple[int, ...]) -> Frames:
    from transformers import video_utils

    av = _pyav()
    load_video: Any = video_utils.load_video  # its annotation leaves out the path that its documentation describes

    def chosen(metadata: Any, **_: Any) -> npt.NDArray[np.int64]:
        return np.array(indices, dtype=np.int64)

    try:
        frames, _ = load_video(str(path), backend="pyav", sample_indices_fn=chosen)
    except (av.error.FFmpegError, ValueError) as error:
        raise VideoError(f"video file is damaged: {path}: {error}") from error
    if len(frames) != len(indices):
        raise VideoError(f"video file is damaged: {path}: {len(frames)} of the {len(indices)} sampled frames decode")
    return np.asarray(frames, dtype=np.uint8)


def _pyav() -> Any:
    try:
        import av
    except ImportError as error:
        raise VideoError('reading videos needs PyAV: pip install "tokenprune-vlm[qwen25vl]"') from error
    return av
