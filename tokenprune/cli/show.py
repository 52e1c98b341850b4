# SPDX-License-Identifier: Apache-2.0
"""``tokenprune show``: what was kept, merged and dropped, drawn over the frames."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokenprune.cli._common import DebugFlag, JsonFlag, guarded, print_json
from tokenprune.cli._machine import AttnOption, DeviceOption, DtypeOption, Machine, PixelsOption, check_pixels
from tokenprune.cli._pipeline import (
    ClusterOption,
    KeepOption,
    LayerOption,
    PipelineChoice,
    PipelineOption,
    PresetOption,
    SegmentOption,
    TauOption,
)
from tokenprune.cli._usage import UsageError
from tokenprune.cli._video import FpsOption, FramesOption, reading, say_damage
from tokenprune.cli.run import DEMO, SHIPPED, _progress, check_frames, check_question, shipped_note
from tokenprune.errors import InvalidValueError
from tokenprune.messages import meant

if TYPE_CHECKING:
    from tokenprune.answers import Answer, ClipQuestion
    from tokenprune.bench.runner import PreparedQuestion, VideoModel
    from tokenprune.show.scene import Scene

OUT = Path("tokenprune-show")
SHEET, PAGE = "frames.png", "index.html"


def show(
    video: Annotated[str, typer.Argument(help=f"A video file, or {DEMO}: a clip that ships with tokenprune.")],
    question: Annotated[str, typer.Argument(help="What to ask about it.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the pictures.", metavar="DIR")] = OUT,
    model: Annotated[
        str | None,
        typer.Option(help="A checkpoint directory or id; the small shipped model where none is given.", metavar="NAME"),
    ] = None,
    preset: PresetOption = None,
    pipeline: PipelineOption = None,
    tau: TauOption = None,
    cluster_ratio: ClusterOption = None,
    segment_ratio: SegmentOption = None,
    keep_ratio: KeepOption = None,
    layer: LayerOption = None,
    frames: FramesOption = None,
    fps: FpsOption = None,
    max_pixels: PixelsOption = None,
    max_new_tokens: Annotated[int, typer.Option(help="Length of the answer, at most.", min=1)] = 64,
    system: Annotated[str | None, typer.Option(help="System prompt, instead of the model's own.")] = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    attn: AttnOption = None,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Answer a question about a video and draw what happened to each visual token: a contact sheet and a page."""
    with guarded(debug, as_json):
        machine = Machine.check(device, dtype, attn, as_json)
        check_pixels(max_pixels, as_json)
        check_question(question, as_json)
        check_frames(frames, fps, as_json)
        choice = PipelineChoice(preset, pipeline, tau, cluster_ratio, segment_ratio, keep_ratio, layer)
        name, chosen = choice.resolve(as_json)
        _check_out(out, as_json)
        from tokenprune.answers import ClipQuestion
        from tokenprune.cli._runner import find_runner
        from tokenprune.files import video_place
        from tokenprune.plugins import find_adapter

        runner = find_runner(model)
        if model is None:
            print(shipped_note(runner.unknown_words(question)), file=sys.stderr, flush=True)
        place = runner.demo() if video == DEMO else video
        path = str(video_place(place, meant(place, [DEMO])))  # before a large model is loaded
        with _progress() as say:
            say("loading the model")
            loaded = runner.load(model, machine.device, machine.dtype, machine.attn)
            chosen.layers(find_adapter(loaded.module).depth)
            say("reading the video")
            asked = ClipQuestion(path, question, system, frames, fps, max_pixels, reading(say))
            prepared = loaded.prepare(asked)
            say_damage(video, prepared)
            say("answering")
            answer = loaded.answer(prepared, chosen, max_new_tokens)
            say("drawing")
            facts = {"video": Path(video).name, "model": Path(model or SHIPPED).name, "pipeline": name}
            scene = _scene(loaded, asked, prepared, answer, facts)
            files = _draw(scene, out)
        if as_json:
            print_json(_to_dict(video, question, answer, scene, files))
            return
        print(answer.text)
        for line in scene.cuts():
            print(f"  {line}")
        print(f"pictures: {files['page']} and {files['sheet']}")


def _check_out(out: Path, as_json: bool) -> None:
    """Whatever would fail only after the answer is refused first."""
    taken = next((folder for folder in (out, *out.parents) if folder.exists()), out)
    if not taken.is_dir():
        raise UsageError(f"--out must name a folder, but {taken} is a file", as_json)
    if find_spec("PIL") is None or find_spec("jinja2") is None:
        raise UsageError('drawing needs Pillow and Jinja2: pip install "tokenprune-vlm[plot]"', as_json)


def _scene(
    model: VideoModel, asked: ClipQuestion, prepared: PreparedQuestion, answer: Answer, facts: dict[str, str]
) -> Scene:
    from tokenprune.show.cells import CellMap
    from tokenprune.show.scene import Scene

    spans = [] if answer.report is None else [s for s in answer.report.spans[0] if s.modality == "video"]
    if len(spans) != 1:
        raise InvalidValueError(f"one video can be shown, but the prompt holds {len(spans)}")
    return Scene(
        pictures=model.pictures(prepared),
        fps=prepared.sampled_fps,
        cells=CellMap.of(spans[0]),
        question=asked.question,
        answer=answer.text,
        facts=facts,
    )


def _draw(scene: Scene, out: Path) -> dict[str, str]:
    from tokenprune.show.page import write_page
    from tokenprune.show.sheet import draw_sheet

    out.mkdir(parents=True, exist_ok=True)
    draw_sheet(scene, out / SHEET)
    write_page(scene, out / PAGE)
    return {"page": str(out / PAGE), "sheet": str(out / SHEET)}


def _to_dict(video: str, question: str, answer: Answer, scene: Scene, files: dict[str, str]) -> dict[str, Any]:
    from tokenprune.cli._answer import answer_to_dict

    cells = {"grid": list(scene.cells.grid), **scene.cells.counts(), "segments": list(scene.cells.segments)}
    return {"video": video, "question": question, **scene.facts, **files, "cells": cells, **answer_to_dict(answer)}
