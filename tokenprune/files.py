# SPDX-License-Identifier: Apache-2.0
"""Files: where a video lies, and writing results whole or not at all."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

from tokenprune.errors import VideoError


def video_place(video: str | Path, hint: str = "") -> Path:
    """Where a video lies on this machine; raises :class:`VideoError` for an address, or where nothing is.

    Args:
        video: its path.
        hint: added to the message where nothing is.
    """
    place = Path(video)
    if place.exists():
        return place
    if str(video).lower().startswith(("http:/", "https:/")):  # a Path has lost the second slash
        raise VideoError(f"videos are not fetched from the network: download it first and give its path, not {video}")
    raise VideoError(f"no such video file: {video}{hint}")


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all; see :func:`write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write ``data``; a reader finds the old file or the new one, never a part, whatever interrupts us.

    The file gets the permissions that any new file would get.

    Raises:
        OSError: it cannot be written; the message names it.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):  # of a name that nobody gave
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
