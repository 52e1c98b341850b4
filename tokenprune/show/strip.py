# SPDX-License-Identifier: Apache-2.0
"""A few places in time side by side, as small as a page of many methods wants them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from tokenprune.files import write_bytes
from tokenprune.show.colours import PAPER
from tokenprune.show.scene import Scene
from tokenprune.show.sheet import _fates, _scores

GAP = 4
QUALITY = 60


def draw_strip(scene: Scene, path: Path, *, places: int = 4, wide: int = 132) -> None:
    """Write what happened to the tokens, below it the scores where there are some, as WebP; whole or not at all.

    Args:
        scene: what is drawn.
        path: ending in ``.webp``.
        places: so many places in time, evenly spread; all, where there are fewer.
        wide: pixels of each.
    """
    from PIL import Image

    frames = scene.cells.grid[0]
    chosen = [number * frames // min(places, frames) for number in range(min(places, frames))]
    height, width = scene.pictures.shape[1:3]
    high = max(1, round(wide * height / width))
    rows = [_fates] if scene.cells.scores is None else [_fates, _scores]
    size = (len(chosen) * (wide + GAP) - GAP, len(rows) * (high + GAP) - GAP)
    strip: Any = Image.new("RGB", size, PAPER)
    for number, place in enumerate(chosen):
        for row, draw in enumerate(rows):
            strip.paste(draw(scene, place, (wide, high)), (number * (wide + GAP), row * (high + GAP)))
    file = io.BytesIO()
    strip.save(file, "WEBP", quality=QUALITY, method=6)
    write_bytes(path, file.getvalue())
