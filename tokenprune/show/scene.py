# SPDX-License-Identifier: Apache-2.0
"""What is drawn: pictures, cells, and the words around them."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tokenprune.errors import InvalidValueError
from tokenprune.show.cells import CellMap

Picture = npt.NDArray[np.uint8]
"""``(height, width, 3)`` RGB."""


@dataclass(frozen=True, eq=False)
class Scene:
    """One question about one video, answered.

    Args:
        pictures: ``(F, height, width, 3)`` uint8, the frames as the model saw them; F is a multiple of the grid's T,
            and a token covers F / T of them.
        fps: how many of them make a second.
        cells: what happened to the tokens.
        question: what was asked.
        answer: what the model said.
        facts: further lines of the heading, name -> value.

    Raises:
        InvalidValueError: the pictures do not fit the grid.
    """

    pictures: npt.NDArray[np.uint8]
    fps: float
    cells: CellMap
    question: str
    answer: str
    facts: Mapping[str, str]

    def __post_init__(self) -> None:
        frames, height, width = self.cells.grid
        if self.pictures.ndim != 4 or len(self.pictures) % frames or not len(self.pictures):
            raise InvalidValueError(f"pictures {self.pictures.shape} do not fit the grid {self.cells.grid}")
        if self.pictures.shape[1] < height or self.pictures.shape[2] < width:
            raise InvalidValueError(f"pictures {self.pictures.shape} are smaller than the grid {self.cells.grid}")

    @property
    def pace(self) -> int:
        """Frames that one token covers."""
        return len(self.pictures) // self.cells.grid[0]

    def picture(self, place: int) -> Picture:
        """The first of the frames that the tokens at a place in time cover."""
        return self.pictures[place * self.pace]

    def seconds(self, place: int) -> float:
        """When that frame is shown."""
        return place * self.pace / self.fps

    def cuts(self) -> list[str]:
        """What each operator did, a line each."""
        return [f"{step.operator} {step.where}: {step.before} -> {step.after}" for step in self.cells.steps]


def data_uri(picture: Picture) -> str:
    """The picture as a JPEG inside an address."""
    from PIL import Image

    file = io.BytesIO()
    made: Any = Image.fromarray(picture)
    made.save(file, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
