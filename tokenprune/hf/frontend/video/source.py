# SPDX-License-Identifier: Apache-2.0
"""A video file, opened: what it is, and which of its streams is the video."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenprune.errors import VideoError

# FFmpeg also "reads" these: a text file as terminal art, a playlist as the files and addresses it names.
_NOT_A_VIDEO = ("tty", "image2", "concat", "hls", "dash", "sdp", "lavfi")
_COVER = 0x400 | 0x800  # AV_DISPOSITION_ATTACHED_PIC, AV_DISPOSITION_TIMED_THUMBNAILS
_DEFAULT = 0x1  # AV_DISPOSITION_DEFAULT
_MOST_FAULTS = 1000


def pyav() -> Any:
    """The module ``av``; raises :class:`VideoError` where it is not installed."""
    try:
        import av
    except ImportError as error:
        raise VideoError('reading videos needs PyAV: pip install "tokenprune-vlm[qwen25vl]"') from error
    return av


@contextmanager
def opened(path: Path) -> Generator[tuple[Any, Any], None, None]:
    """The container of a file and its video stream.

    Raises:
        VideoError: the file cannot be opened, or there is no video in it.
    """
    av = pyav()
    try:
        # "file:" keeps a colon in a name from being read as a protocol, the whitelist keeps playlists off the network.
        container = av.open(f"file:{path}", options={"protocol_whitelist": "file"})
    except (av.error.FFmpegError, ValueError) as error:
        raise VideoError(f"cannot read {path} as a video, it is damaged, cut off or something else: {error}") from error
    with container:
        formats = set(container.format.name.split(","))
        if formats & set(_NOT_A_VIDEO) or any(name.endswith("_pipe") for name in formats):
            raise VideoError(f"not a video file (it reads as {container.format.name}): {path}")
        yield container, _video_stream(container, path)


def packets(container: Any, stream: Any) -> Iterator[Any]:
    """What is left of the streams' packets; faults of the container are stepped over, as players do."""
    av = pyav()
    for _ in range(_MOST_FAULTS):
        try:
            yield from container.demux(*([] if stream is None else [stream]))
            return
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            continue


def _video_stream(container: Any, path: Path) -> Any:
    """The one a player shows: no cover picture, the default one first, then the one with most pixels."""
    streams = list(container.streams.video)
    videos = [stream for stream in streams if not int(getattr(stream, "disposition", 0)) & _COVER]
    if not videos:
        also = " but a cover picture" if streams else ""
        raise VideoError(f"file has no video in it{also}: {path}")
    readable = [stream for stream in videos if stream.codec_context is not None]
    if not readable:
        raise VideoError(f"no decoder for the video in {path}")
    return max(readable, key=_rank)


def _rank(stream: Any) -> tuple[bool, int, int, int]:
    default = bool(int(getattr(stream, "disposition", 0)) & _DEFAULT)
    return default, int(stream.width or 0) * int(stream.height or 0), int(stream.bit_rate or 0), -int(stream.index)
