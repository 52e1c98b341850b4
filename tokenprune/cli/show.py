# SPDX-License-Identifier: Apache-2.0
"""``tokenprune show``: what was kept, merged and dropped, drawn over the frames."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokenprune.cli._asking import Asking, Prepared
from tokenprune.cli._output import UsageError
from tokenprune.errors import InvalidValueError

if TYPE_CHECKING:
    from tokenprune.answers import Answer
    from tokenprune.show.scene import Scene

OUT = Path("tokenprune-show")
SHEET, PAGE = "frames.png", "index.html"


def show(
    asking: Asking,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures.", metavar="DIR")] = OUT,
) -> Shown:
    """Answer a question about a video and draw what happened to each visual token: a contact sheet and a page."""
    _check_out(out)
    with asking.prepared() as prepared:
        answer = prepared.pruned()
        prepared.say("drawing")
        scene = _scene(asking, prepared, answer)
        files = _draw(scene, out)
    return Shown(asking, answer, scene, files)


@dataclass(frozen=True)
class Shown:
    """The answer, and the pictures that were drawn."""

    asking: Asking
    answer: Answer
    scene: Scene
    files: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        from tokenprune.cli._answer import answer_to_dict

        map_ = self.scene.cells
        cells = {"grid": list(map_.grid), **map_.counts(), "segments": list(map_.segments)}
        asked = {"video": self.asking.video, "question": self.asking.question}
        return {**asked, **self.scene.facts, **self.files, "cells": cells, **answer_to_dict(self.answer)}

    def render(self) -> None:
        """Print the answer, what each operator did, and where the pictures are."""
        print(self.answer.text)
        for line in self.scene.cuts():
            print(f"  {line}")
        print(f"pictures: {self.files['page']} and {self.files['sheet']}")


def _check_out(out: Path) -> None:
    """Whatever would fail only after the answer is refused first."""
    taken = next((folder for folder in (out, *out.parents) if folder.exists()), out)
    if not taken.is_dir():
        raise UsageError(f"--out must name a folder, but {taken} is a file")
    if not os.access(taken, os.W_OK):
        raise UsageError(f"--out must name a folder that can be written to, but {taken} cannot")
    if find_spec("PIL") is None or find_spec("jinja2") is None:
        raise UsageError('drawing needs Pillow and Jinja2: pip install "tokenprune-vlm[plot]"')


def _scene(asking: Asking, prepared: Prepared, answer: Answer) -> Scene:
    from tokenprune.show.cells import CellMap
    from tokenprune.show.scene import Scene

    spans = [] if answer.report is None else [s for s in answer.report.spans[0] if s.modality == "video"]
    if len(spans) != 1:
        raise InvalidValueError(f"one video can be shown, but the prompt holds {len(spans)}")
    names = {"video": Path(asking.video).name, "model": Path(asking.model_name).name, "pipeline": prepared.name}
    return Scene(
        pictures=prepared.model.pictures(prepared.ready),
        fps=prepared.ready.sampled_fps,
        cells=CellMap.of(spans[0]),
        question=asking.question,
        answer=answer.text,
        facts=names,
    )


def _draw(scene: Scene, out: Path) -> dict[str, str]:
    from tokenprune.show.page import write_page
    from tokenprune.show.sheet import draw_sheet

    out.mkdir(parents=True, exist_ok=True)
    draw_sheet(scene, out / SHEET)
    write_page(scene, out / PAGE)
    return {"page": str(out / PAGE), "sheet": str(out / SHEET)}
