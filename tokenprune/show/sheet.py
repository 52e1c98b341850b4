# SPDX-License-Identifier: Apache-2.0
"""The contact sheet: every place in time beside the next, what happened to its cells drawn over it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from tokenprune.files import write_bytes
from tokenprune.show.cells import DROPPED, FATES, KEPT
from tokenprune.show.colours import DARK, DOT, LINE, PAPER, SCORES, SEGMENTS, STATIC, TEXT, TEXT_DIM, heat_colour
from tokenprune.show.scene import Scene

MOST = 24
"""Places in time on one sheet; of more, evenly spread ones are shown."""
WIDE = 1320
MARGIN, GAP, BAND, CAPTION = 24, 14, 8, 22


def draw_sheet(scene: Scene, path: Path) -> None:
    """Write the contact sheet as PNG; the file appears whole or not at all."""
    from PIL import Image, ImageDraw

    places = shown_places(scene.cells.grid[0])
    height, width = scene.pictures.shape[1:3]
    columns = min(len(places), max(2, min(6, round(WIDE / 320))))
    wide = min((WIDE - 2 * MARGIN - (columns - 1) * GAP) // columns, 640)
    high = max(1, round(wide * height / width))
    layers = 1 if scene.cells.scores is None else 2
    tile = BAND + layers * (high + 4) + CAPTION + GAP
    head = _heading(scene, len(places))
    top = MARGIN + 24 * len(head) + 40
    size = (WIDE, top + -(-len(places) // columns) * tile + MARGIN - GAP)
    sheet: Any = Image.new("RGB", size, PAPER)
    draw: Any = ImageDraw.Draw(sheet)
    for line, text in enumerate(head):
        fitted = _fitted(draw, text, _font(17), size[0] - 2 * MARGIN)
        draw.text((MARGIN, MARGIN + 24 * line), fitted, TEXT if line < 2 else TEXT_DIM, _font(17))
    _legend(draw, scene, MARGIN + 24 * len(head) + 8)
    for number, place in enumerate(places):
        x = MARGIN + number % columns * (wide + GAP)
        y = top + number // columns * tile
        segment = scene.cells.segment_of(place)
        if segment >= 0:
            draw.rectangle((x, y, x + wide - 1, y + BAND - 3), SEGMENTS[segment % len(SEGMENTS)])
        sheet.paste(_fates(scene, place, (wide, high)), (x, y + BAND))
        if layers == 2:
            sheet.paste(_scores(scene, place, (wide, high)), (x, y + BAND + high + 4))
        draw.text((x, y + BAND + layers * (high + 4)), _caption(scene, place), TEXT_DIM, _font(13))
    file = io.BytesIO()
    sheet.save(file, "PNG", optimize=True)
    write_bytes(path, file.getvalue())


def shown_places(frames: int) -> list[int]:
    """Which of the grid's frames are on the sheet."""
    count = min(frames, MOST)
    return [number * frames // count for number in range(count)]


def _heading(scene: Scene, shown: int) -> list[str]:
    total = scene.cells.grid[0]
    some = "" if shown == total else f"   ({shown} of {total} places in time are shown)"
    return [f"Q: {scene.question}", f"A: {scene.answer}", ",  ".join(scene.cuts() or ["nothing was removed"]) + some]


def _caption(scene: Scene, place: int) -> str:
    fates = scene.cells.fate.reshape(scene.cells.grid[0], -1)[place]
    counts = ", ".join(f"{int((fates == number).sum())} {name}" for number, name in enumerate(FATES))
    return f"{scene.seconds(place):.1f} s   {counts}"


def _legend(draw: Any, scene: Scene, y: int) -> None:
    entries = [("dot", DOT, "kept: a token stands here"), ("box", STATIC[:3], "static: merged over time")]
    entries += [("frame", LINE[:3], "one outline: one token"), ("box", DARK[:3], "dropped")]
    if scene.cells.scores is not None:
        entries.append(("box", SCORES, f"{scene.cells.scored} (lower picture)"))
    x = MARGIN
    for kind, colour, text in entries:
        if kind == "dot":
            draw.ellipse((x + 3, y + 3, x + 13, y + 13), colour, (0, 0, 0))
        elif kind == "frame":
            draw.rectangle((x, y, x + 16, y + 16), None, colour, 2)
        else:
            draw.rectangle((x, y, x + 16, y + 16), colour, (90, 96, 110))
        draw.text((x + 23, y), text, TEXT, _font(14))
        x += 23 + int(draw.textlength(text, _font(14))) + 24


def _fates(scene: Scene, place: int, size: tuple[int, int]) -> Any:
    """The picture with merged cells outlined, static ones tinted, dropped ones dark and anchors dotted."""
    from PIL import Image, ImageDraw

    cells = scene.cells
    _, rows, columns = cells.grid
    made: Any = Image.fromarray(scene.picture(place)).resize(size)
    draw: Any = ImageDraw.Draw(made, "RGBA")
    xs, ys = _edges(size[0], columns), _edges(size[1], rows)
    first = place * rows * columns
    fate, token = (a[first : first + rows * columns].reshape(rows, columns) for a in (cells.fate, cells.token))
    static = cells.static[first : first + rows * columns].reshape(rows, columns)
    for row, column in np.ndindex(rows, columns):
        box = (xs[column], ys[row], xs[column + 1] - 1, ys[row + 1] - 1)
        if static[row, column]:
            draw.rectangle(box, STATIC)
        if fate[row, column] == DROPPED:
            draw.rectangle(box, DARK)
    for row, column in np.ndindex(rows, columns):
        alive = fate[row, column] != DROPPED
        if column + 1 < columns and token[row, column] != token[row, column + 1]:
            seen = alive or fate[row, column + 1] != DROPPED
            draw.line((xs[column + 1], ys[row], xs[column + 1], ys[row + 1]), LINE if seen else (*LINE[:3], 50))
        if row + 1 < rows and token[row, column] != token[row + 1, column]:
            seen = alive or fate[row + 1, column] != DROPPED
            draw.line((xs[column], ys[row + 1], xs[column + 1], ys[row + 1]), LINE if seen else (*LINE[:3], 50))
        if fate[row, column] == KEPT:
            x, y = (xs[column] + xs[column + 1]) / 2, (ys[row] + ys[row + 1]) / 2
            radius = max(1.5, min(5.0, (xs[1] - xs[0]) / 6))
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), DOT, (0, 0, 0))
    return made


def _scores(scene: Scene, place: int, size: tuple[int, int]) -> Any:
    """The picture in grey under the scores; cells that had no token are dark."""
    from PIL import Image, ImageDraw

    heat = scene.cells.heat()
    _, rows, columns = scene.cells.grid
    made: Any = Image.fromarray(scene.picture(place)).resize(size).convert("L").convert("RGB")
    draw: Any = ImageDraw.Draw(made, "RGBA")
    xs, ys = _edges(size[0], columns), _edges(size[1], rows)
    for row, column in np.ndindex(rows, columns):
        value = np.nan if heat is None else float(heat[(place * rows + row) * columns + column])
        colour = DARK if np.isnan(value) else (*heat_colour(value), 165)
        draw.rectangle((xs[column], ys[row], xs[column + 1] - 1, ys[row + 1] - 1), colour)
    return made


def _edges(length: int, parts: int) -> list[int]:
    return [length * part // parts for part in range(parts + 1)]


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _fitted(draw: Any, text: str, font: Any, width: int) -> str:
    text = " ".join(text.split())
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength(text + "...", font) > width:
        text = text[: -max(1, len(text) // 20)]
    return text + "..."
