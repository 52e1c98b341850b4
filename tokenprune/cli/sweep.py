# SPDX-License-Identifier: Apache-2.0
"""``tokenprune sweep``: every combination of parameters, on one video or on the questions of the world benchmark."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokenprune.cli._common import DebugFlag, JsonFlag, guarded, print_json
from tokenprune.cli._machine import AttnOption, DeviceOption, DtypeOption, Machine, PixelsOption, check_pixels
from tokenprune.cli._outputs import check_outputs
from tokenprune.cli._progress import progress_bar
from tokenprune.cli._sweep_grid import CLUSTER_RATIO, SEGMENT_RATIO, TAU, Grid, Point, parse_grid
from tokenprune.cli._usage import UsageError
from tokenprune.cli._video import FpsOption, FramesOption
from tokenprune.cli.eval import find_benchmark
from tokenprune.cli.run import DEMO, SHIPPED, SHIPPED_NOTE, check_frames, check_question
from tokenprune.errors import VideoError
from tokenprune.messages import meant

if TYPE_CHECKING:
    from tokenprune.bench.results import Results
    from tokenprune.cli._sweep_measure import Measure

RESULTS = Path("stage1_sweep_results.json")
KIND = "tokenprune.sweep"
QUESTIONS = 200
NEW_TOKENS = 64


def sweep(
    video: Annotated[
        str | None, typer.Argument(help=f"A video file, or {DEMO}: a clip that ships with tokenprune.")
    ] = None,
    question: Annotated[str | None, typer.Argument(help="What to ask about it.")] = None,
    world: Annotated[bool, typer.Option("--world", help="Ask the world benchmark's questions instead.")] = False,
    tau: Annotated[str, typer.Option(help="Values to try, with commas between them.")] = TAU,
    cluster_ratio: Annotated[str, typer.Option(help="Values to try.")] = CLUSTER_RATIO,
    segment_ratio: Annotated[str, typer.Option(help="Values to try.")] = SEGMENT_RATIO,
    keep_ratio: Annotated[str | None, typer.Option(help="Values of stage 2 to try; adds stage 2.")] = None,
    layer: Annotated[str | None, typer.Option(help="Layers of stage 2 to try; adds stage 2.")] = None,
    questions: Annotated[
        int | None, typer.Option(help=f"With --world: how many; {QUESTIONS} where none is given.", min=1)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="With --world: which set of held-out clips; 0.", min=0)] = None,
    model: Annotated[
        str | None,
        typer.Option(help="A checkpoint directory or id; the small shipped model where none is given.", metavar="NAME"),
    ] = None,
    frames: FramesOption = None,
    fps: FpsOption = None,
    max_pixels: PixelsOption = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help=f"Length of the answer, at most; {NEW_TOKENS} where none is given.", min=1)
    ] = None,
    system: Annotated[str | None, typer.Option(help="System prompt, instead of the model's own.")] = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    attn: AttnOption = None,
    out: Annotated[Path, typer.Option(help="Results; a file that is there is gone on with.", metavar="FILE")] = RESULTS,
    plot: Annotated[
        Path | None,
        typer.Option(help="The picture; beside the results where matplotlib is installed.", metavar="FILE"),
    ] = None,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Try every combination of parameters and show what each costs and keeps.

    Each result is written when it is measured: after an interruption the same command goes on where it was.
    """
    with guarded(debug, as_json):
        runs = Machine.check(device, dtype, attn, as_json)
        check_pixels(max_pixels, as_json)
        asked = _Asked(video, question, system, frames, fps, max_pixels, max_new_tokens, questions, seed)
        asked.check(world, as_json)
        grid = parse_grid(tau, cluster_ratio, segment_ratio, keep_ratio, layer, as_json=as_json)
        _check_files(out, plot, as_json)
        machine = {"model": model or SHIPPED, "device": runs.device, "dtype": runs.dtype, "attention": runs.attn}
        if model is None:
            print(SHIPPED_NOTE, file=sys.stderr, flush=True)
        start = _start_world if world else _start_question
        results, measure = start(asked, machine, model, out)
        _run(results, measure, grid)
        _show(results, grid, plot, as_json)


@dataclass(frozen=True)
class _Asked:
    """What was asked of which video, or which questions of the world."""

    video: str | None
    question: str | None
    system: str | None
    frames: int | None
    fps: float | None
    max_pixels: int | None
    max_new_tokens: int | None
    questions: int | None
    seed: int | None

    def check(self, world: bool, as_json: bool) -> None:
        shown = (self.video, self.question, self.system, self.frames, self.fps, self.max_pixels, self.max_new_tokens)
        if world and any(value is not None for value in shown):
            raise UsageError(
                "--world brings its own clips, questions and lengths of answers; leave out VIDEO, QUESTION, --frames, "
                "--max-new-tokens, ...",
                as_json,
            )
        if not world and (self.questions is not None or self.seed is not None):
            raise UsageError("--questions and --seed are for --world", as_json)
        if not world and (self.video is None or self.question is None):
            raise UsageError("give VIDEO and QUESTION, or --world", as_json)
        if not world:
            check_question(self.question or "", as_json)
            check_frames(self.frames, self.fps, as_json)


def _check_files(out: Path, plot: Path | None, as_json: bool) -> None:
    """Whatever would fail only after everything has been measured is refused first."""
    if out.suffix != ".json":
        raise UsageError(f"--out must end in .json, got {out}", as_json)
    check_outputs(out, plot, as_json)


def _start_question(asked: _Asked, machine: dict[str, Any], model: str | None, out: Path) -> tuple[Results, Measure]:
    from tokenprune.answers import ClipQuestion
    from tokenprune.bench.results import Results, file_sha256, versions, weights_sha256
    from tokenprune.cli._runner import find_runner
    from tokenprune.cli._sweep_measure import OneQuestion
    from tokenprune.files import video_place

    runner = find_runner(model)
    place = runner.demo() if asked.video == DEMO else str(asked.video)
    path = str(video_place(place, meant(place, [DEMO])))  # before a large model is loaded
    if not Path(path).is_file():  # its hash names what was measured
        raise VideoError(f"a sweep needs one video file, not a folder: {path}")
    inputs = {
        "video_sha256": file_sha256(path),
        "question": asked.question,
        "system": asked.system,
        "frames": asked.frames,
        "fps": asked.fps,
        "max_pixels": asked.max_pixels,
        "max_new_tokens": asked.max_new_tokens or NEW_TOKENS,
        **machine,
        **versions(),
    }
    results = Results.open(out, KIND, inputs)
    loaded = runner.load(model, machine["device"], machine["dtype"], machine["attention"])
    results.require("weights_sha256", weights_sha256(loaded.module))
    clip = ClipQuestion(path, str(asked.question), asked.system, asked.frames, asked.fps, asked.max_pixels)
    return results, OneQuestion(loaded, lambda: loaded.prepare(clip), asked.max_new_tokens or NEW_TOKENS)


def _start_world(asked: _Asked, machine: dict[str, Any], model: str | None, out: Path) -> tuple[Results, Measure]:
    from tokenprune.bench.benchmark import BenchmarkRequest
    from tokenprune.bench.results import Results, versions
    from tokenprune.cli._sweep_measure import WorldQuestions

    request = BenchmarkRequest(
        questions=asked.questions or QUESTIONS,
        seed=asked.seed or 0,
        model=model,
        device=machine["device"],
        dtype=machine["dtype"],
        attn=machine["attention"],
    )
    inputs = {"benchmark": "world", "questions": request.questions, "seed": request.seed, "model": machine["model"]}
    results = Results.open(out, f"{KIND}.world", {**inputs, **versions()})
    return results, WorldQuestions(find_benchmark("world"), request)


def _run(results: Results, measure: Measure, grid: Grid) -> None:
    done = [entry["point"] for entry in results.entries]
    points = list(grid.points())
    waiting: Sequence[Point] = [point for point in points if point not in done]
    if not waiting:
        return
    with progress_bar("points") as progress:
        measured = measure.begin(results, waiting)
        for left, point in zip(range(len(waiting), 0, -1), waiting):
            progress(len(points) - left, len(points))
            results.add({"point": point, **measured(point)})


def _show(results: Results, grid: Grid, plot: Path | None, as_json: bool) -> None:
    from tokenprune.cli._sweep_view import best_first, draw_sweep, sweep_table

    if find_spec("matplotlib") is not None:
        plot = plot or results.path.with_suffix(".png")
        draw_sweep(results.data, plot)
    if as_json:
        print_json(results.data)
        return
    from rich.console import Console

    wanted = list(grid.points())
    shown = [entry for entry in results.entries if entry["point"] in wanted]
    # Wider than any table, so that none is folded to the width of a terminal.
    Console(highlight=False, markup=False, width=1000).print(sweep_table(best_first(shown)))
    print(f"results: {results.path}" + ("" if plot is None else f", picture: {plot}"))
