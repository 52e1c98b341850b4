# SPDX-License-Identifier: Apache-2.0
"""``tokenprune eval agree``: how near pruned answers about any videos stay to the unpruned model's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokenprune.cli._agreed import Agreed
from tokenprune.cli._eval_methods import Methods
from tokenprune.cli._machine import Machine
from tokenprune.cli._output import UsageError
from tokenprune.cli._outputs import OutOption, Outputs
from tokenprune.cli._pipeline import DEFAULT
from tokenprune.cli._pipelines import PipelineChoices
from tokenprune.cli._progress import progress_bar
from tokenprune.cli._runner import SHIPPED, SHIPPED_NOTE, ModelOption, find_runner, say_note
from tokenprune.cli._video import Sampling, check_question
from tokenprune.errors import VideoError

if TYPE_CHECKING:
    from tokenprune.pipeline import Pipeline

KIND = "tokenprune.agree.partial"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked about which videos.

    Raises:
        UsageError: no folder, or an empty question.
    """

    videos: Annotated[Path, typer.Option(help="Folder of videos.", metavar="DIR")]
    questions: Annotated[
        list[str] | None,
        typer.Option("--question", help="May be repeated; six general ones if left out.", show_default=False),
    ] = None
    windows: Annotated[int, typer.Option(help="Parts of each video, asked about one by one.", min=1)] = 1
    max_new_tokens: Annotated[int, typer.Option(help="Length of an answer, at most.", min=1)] = 16

    def __post_init__(self) -> None:
        if not self.videos.is_dir():
            raise UsageError(f"--videos must be a folder, got {self.videos}")
        for question in self.questions or ():
            check_question(question)


def agree(
    asked: Asked,
    choices: PipelineChoices,
    methods: Methods,
    sampling: Sampling,
    machine: Machine,
    *,
    out: OutOption = None,
    model: ModelOption = None,
) -> Agreed:
    """Compare answers with the unpruned model's, on videos that need no labels, for any checkpoint.

    Counted are greedy answers that are equal token by token, and how far the distribution of the first token moves
    (Kullback-Leibler divergence). Each part of a video is encoded once. With --out, what is done is kept beside that
    file: after an interruption the same command goes on where it was.
    """
    from tokenprune.answers import ClipQuestion
    from tokenprune.bench.agree.asking import GENERAL, OF_THE_WORLD, Agreement, ask_videos, videos_in
    from tokenprune.bench.agree.figures import AgreeResult, AgreeRow
    from tokenprune.bench.results import Results, versions, weights_sha256
    from tokenprune.plugins import find_adapter

    outputs = Outputs(out)
    pipelines = _pipelines(choices, methods)
    found = videos_in(asked.videos)
    questions = asked.questions or list(OF_THE_WORLD if model is None else GENERAL)
    if model is None:
        say_note(SHIPPED_NOTE)
    loaded = machine.load(find_runner(model), model)
    adapted = find_adapter(loaded.module)
    for pipeline in pipelines.values():
        pipeline.stages(adapted.depth, adapted.readable)
    setting: dict[str, Any] = {
        "model": model or SHIPPED,
        "weights_sha256": weights_sha256(loaded.module),
        "videos": [video.name for video in found],
        "questions": questions,
        "windows": asked.windows,
        "max_new_tokens": asked.max_new_tokens,
        **asdict(sampling),
        **machine.facts(),
        "pipelines": {name: dict(pipeline.to_dict()) for name, pipeline in pipelines.items()},
        **versions(),
    }
    journal = None if out is None else Results.open(out.with_name(f"{out.stem}.partial.json"), KIND, setting)
    reading = ClipQuestion("", questions[0], None, sampling.frames, sampling.fps, sampling.max_pixels)
    agreement = Agreement(loaded, pipelines, reading, questions, asked.windows, asked.max_new_tokens)
    with progress_bar("videos") as progress:
        entries = ask_videos(agreement, found, progress, journal)
    read = [entry for entry in entries if "error" not in entry]
    unreadable = {entry["video"]: entry["error"] for entry in entries if "error" in entry}
    if not read:
        raise VideoError(f"none of the videos in {asked.videos} can be read: {next(iter(unreadable.values()))}")
    setting |= {"parts": len(read), "asked": len(read) * len(questions)}
    result = AgreeResult(setting, [AgreeRow.of(name, read) for name in pipelines], unreadable)
    agreed = Agreed(result, outputs.record(result.to_dict()))
    if journal is not None:
        journal.path.unlink(missing_ok=True)
    return agreed


def _pipelines(choices: PipelineChoices, methods: Methods) -> Mapping[str, Pipeline]:
    """Presets, files and methods in the forms that were asked for, by the names of ``eval world``."""
    from tokenprune.bench.world_benchmark.methods import BEFORE, grid_pipelines, named_suite

    grid = methods.grid(BEFORE)
    named = choices.resolve(default=() if grid else (DEFAULT,))
    entries = [entry for name, pipeline in named.items() for entry in named_suite(name, pipeline, methods.masses)]
    found = {entry.name: entry.pipeline for entry in entries}
    return found if grid is None else found | grid_pipelines(grid)
