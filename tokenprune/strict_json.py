# SPDX-License-Identifier: Apache-2.0
"""Reading a JSON file of a user's: whatever is wrong with it is an ``OSError`` or a ``ValueError`` that says what."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from tokenprune.messages import shown


def read_json(path: str | Path, most_bytes: int | None = None) -> Any:
    """The value in a UTF-8 file, with or without a byte order mark.

    Args:
        path: a regular file: a pipe or a device might never end.
        most_bytes: no more is read of it.

    Raises:
        OSError: the file cannot be opened or read.
        ValueError: it is no regular file, too large, no UTF-8 or no JSON, nests too deeply, says a key of an object
            twice, or holds a number that is none or too large.
    """
    path = Path(path)
    path.stat()  # a missing file is an OSError, and not "no regular file"
    if not path.is_file():
        raise ValueError("it is no regular file")
    with path.open("rb") as file:
        data = file.read(-1 if most_bytes is None else most_bytes + 1)
    if most_bytes is not None and len(data) > most_bytes:
        raise ValueError(f"it holds more than {most_bytes} bytes")
    try:
        return json.loads(
            data.decode("utf-8-sig"), parse_constant=_no_number, parse_float=_number, object_pairs_hook=_object
        )
    except RecursionError:
        raise ValueError("it nests too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"an object has the key {shown(key)} twice")
        found[key] = value
    return found


def _number(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text)


def _no_number(text: str) -> Any:
    raise ValueError(f"{text if len(text) <= 20 else text[:17] + '...'} is no JSON number")
