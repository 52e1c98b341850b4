# SPDX-License-Identifier: Apache-2.0
"""Whether a file ends before its container says it does."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_BOXES = frozenset(b"ftyp styp moov moof mfra mdat free skip wide pnot sidx ssix uuid meta udta emsg prft".split())
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def is_cut_off(path: Path) -> bool:
    """From the sizes that MP4, Matroska/WebM and AVI write at their front; False for other files."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        file.seek(0)
        if head[4:8] in _BOXES:
            return _boxes_end(file, size) > size
        if head[:4] == _EBML:
            return _segment_end(file) > size
        if head[:4] == b"RIFF":
            return int.from_bytes(head[4:8], "little") + 8 > size
    return False


def _boxes_end(file: BinaryIO, size: int) -> int:
    """Where the last of a file's outermost boxes ends."""
    place = 0
    while place < size:
        file.seek(place)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if head[4:8] not in _BOXES or length < 8:  # something behind the video; or 0, a box to the end of the file
            return size
        place += length
    return place


def _segment_end(file: BinaryIO) -> int:
    """Where the Matroska segment ends; 0 where it does not say (a live recording)."""
    file.read(4)
    file.seek(max(_number(file), 0), 1)  # what the EBML header holds
    if file.read(4) != _SEGMENT:
        return 0
    length = _number(file)
    return 0 if length < 0 else file.tell() + length


def _number(file: BinaryIO) -> int:
    """A number of variable length, whose first byte says how long it is; -1: all ones, unknown."""
    first = file.read(1)
    if not first or not first[0]:
        return -1
    more = 8 - first[0].bit_length()
    marker = 1 << (7 * (more + 1))
    value = int.from_bytes(first + file.read(more), "big") ^ marker
    return -1 if value == marker - 1 else value
