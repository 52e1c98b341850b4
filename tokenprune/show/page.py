# SPDX-License-Identifier: Apache-2.0
"""The page with a time slider: one HTML file with everything in it, nothing fetched from anywhere."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from tokenprune.files import write_text
from tokenprune.show import colours
from tokenprune.show.cells import DROPPED, KEPT, CellMap
from tokenprune.show.scene import Scene, data_uri

TEMPLATE = "page.html.j2"


def write_page(scene: Scene, path: Path) -> None:
    """Write the page; the file appears whole or not at all."""
    write_text(path, page(scene))


def page(scene: Scene) -> str:
    """The page as HTML."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("tokenprune.show") / TEMPLATE).read_text("utf-8"))
    cells = scene.cells
    return template.render(
        question=scene.question,
        answer=scene.answer,
        facts=scene.facts,
        cuts=scene.cuts(),
        counts=cells.counts(),
        total=cells.total,
        data=_data(scene),
        css={name: _css(getattr(colours, name)) for name in ("PAPER", "TEXT", "TEXT_DIM", "DOT", "STATIC", "DARK")},
        heat=", ".join(_css(colour) for colour in colours.HEAT),
    )


def _data(scene: Scene) -> dict[str, Any]:
    """What the page's script draws from."""
    cells = scene.cells
    frames = cells.grid[0]
    return {
        "grid": list(cells.grid),
        "frames": [data_uri(scene.picture(place)) for place in range(frames)],
        "size": [scene.pictures.shape[2], scene.pictures.shape[1]],
        "pace": scene.pace,
        "seconds": [round(scene.seconds(place), 2) for place in range(frames)],
        "segments": [list(segment) for segment in cells.segments],
        "fate": cells.fate.tolist(),
        "lost": cells.lost.tolist(),
        "token": cells.token.tolist(),
        "anchor": cells.anchor.tolist(),
        "static": cells.static.astype(np.int64).tolist(),
        "places": places(cells),
        "steps": [f"{step.operator} {step.where}" for step in cells.steps],
        "heat": _rounded(cells.heat(), 3),
        "scores": _rounded(cells.scores, 6),
        "scored": cells.scored,
        "colours": {
            "segments": [_css(colour) for colour in colours.SEGMENTS],
            "heat": [list(colour) for colour in colours.HEAT],
            **{name: _css(getattr(colours, name.upper())) for name in ("dot", "line", "static", "dark")},
        },
    }


def places(cells: CellMap) -> list[dict[str, int]]:
    """Per place in time its cells: ``kept``, ``static`` and ``merged`` of the others that went on, ``dropped``."""
    found: list[dict[str, int]] = []
    for fate, static in zip(cells.fate.reshape(cells.grid[0], -1), cells.static.reshape(cells.grid[0], -1)):
        kept, dropped = fate == KEPT, fate == DROPPED
        still = static & ~kept & ~dropped
        merged = ~(kept | dropped | still)
        sums = {"kept": kept, "static": still, "merged": merged, "dropped": dropped}
        found.append({name: int(which.sum()) for name, which in sums.items()})
    return found


def _rounded(values: Any, digits: int) -> list[float | None] | None:
    """JSON knows no NaN: it becomes null."""
    if values is None:
        return None
    return [None if np.isnan(value) else float(f"{value:.{digits}g}") for value in values.tolist()]


def _css(colour: tuple[int, ...]) -> str:
    red, green, blue, *opacity = colour
    return f"rgba({red}, {green}, {blue}, {opacity[0] / 255:.2f})" if opacity else f"rgb({red}, {green}, {blue})"
