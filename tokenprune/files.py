# SPDX-License-Identifier: Apache-2.0
"""Writing result files: whole or not at all."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all; see :func:`write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write ``data``; a reader finds the old file or the new one, never a part, whatever interrupts us.

    The file gets the permissions that any new file would get.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
