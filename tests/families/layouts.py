# SPDX-License-Identifier: Apache-2.0
"""Prompts of every family as its processor writes them, with the places of their visual tokens known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from tokenprune.adapter import VisualSpan

TEXT = 200
"""Ids below are text."""
IMAGE, VIDEO, START, END, OPEN, CLOSE, AUDIO = 240, 241, 242, 243, 244, 245, 246
BOS, EOS, PAD = 252, 253, 254
IDS = {"image_token_id": IMAGE, "video_token_id": VIDEO}
MARKED = {**IDS, "vision_start_token_id": START, "vision_end_token_id": END}


@dataclass(frozen=True)
class Clip:
    """A video of ``(frames, height, width)`` tokens, or a one-frame image."""

    frames: int
    height: int
    width: int
    modality: str = "video"

    @property
    def grid(self) -> tuple[int, int, int]:
        return self.frames, self.height, self.width

    @property
    def cells(self) -> int:
        return self.height * self.width

    @property
    def count(self) -> int:
        return self.frames * self.cells


def image(height: int, width: int) -> Clip:
    return Clip(1, height, width, "image")


Part = int | Clip
"""So many text tokens, or a video or image."""


@dataclass
class Row:
    """One prompt row while it is written: ids, their modality (0 text, 1 image, 2 video), where clips stand."""

    ids: list[int] = field(default_factory=list)
    types: list[int] = field(default_factory=list)
    spans: list[VisualSpan] = field(default_factory=list)

    def text(self, *ids: int) -> None:
        self.ids += ids
        self.types += [0] * len(ids)

    def visual(self, placeholder: int, count: int, modality: str) -> list[int]:
        first = len(self.ids)
        self.ids += [placeholder] * count
        self.types += [1 if modality == "image" else 2] * count
        return list(range(first, first + count))

    def place(self, clip: Clip, columns: Sequence[int]) -> None:
        self.spans.append(VisualSpan(clip.modality, clip.grid, torch.tensor(columns)))


Write = Callable[[Row, Clip], None]


def one_run(row: Row, clip: Clip) -> None:
    """``<start>P*n<end>``."""
    row.text(START)
    row.place(clip, row.visual(VIDEO if clip.modality == "video" else IMAGE, clip.count, clip.modality))
    row.text(END)


def nested(row: Row, clip: Clip) -> None:
    """Timestamps between frames, and a pair of start and end around them all."""
    if clip.modality == "image":
        return one_run(row, clip)
    row.text(START)
    flat(row, clip)
    row.text(END)
    return None


def flat(row: Row, clip: Clip) -> None:
    """The same without the outer pair."""
    if clip.modality == "image":
        return one_run(row, clip)
    columns: list[int] = []
    for frame in range(clip.frames):
        row.text(150, 100 + frame, *([151] if frame > 1 else []), 152)  # <0.1 seconds>, later a digit more
        row.text(START)
        columns += row.visual(VIDEO, clip.cells, "video")
        row.text(END)
    row.place(clip, columns)
    return None


def bounded(row: Row, clip: Clip) -> None:
    """A start and an end around frames that have the placeholder of images."""
    if clip.modality == "image":
        row.text(START)
        row.place(clip, row.visual(IMAGE, clip.cells, "image"))
        row.text(END)
        return
    row.text(OPEN)
    columns: list[int] = []
    for frame in range(clip.frames):
        row.text(START)
        columns += row.visual(IMAGE, clip.cells, "video")
        row.text(END, 100 + frame)
    row.text(CLOSE)
    row.place(clip, columns)


def with_tail(row: Row, clip: Clip) -> None:
    """One run, and a placeholder more for the newline."""
    placeholder = VIDEO if clip.modality == "video" else IMAGE
    row.place(clip, row.visual(placeholder, clip.count, clip.modality))
    row.visual(placeholder, 1, clip.modality)


def bare_run(row: Row, clip: Clip) -> None:
    row.place(clip, row.visual(VIDEO if clip.modality == "video" else IMAGE, clip.count, clip.modality))


def runs_apart(gap: int, placeholder: int) -> Write:
    """Frames with ``gap`` ids between them; an image is a single such run."""

    def write(row: Row, clip: Clip) -> None:
        columns: list[int] = []
        for frame in range(clip.frames):
            if frame:
                row.text(*range(60, 60 + gap - 1))
            row.text(START)
            used = IMAGE if clip.modality == "image" else placeholder
            columns += row.visual(used, clip.cells, clip.modality)
        row.text(END)
        row.place(clip, columns)

    return write
