# SPDX-License-Identifier: Apache-2.0
"""What a sweep asks of which video, or which questions of the world, and the results that it goes on with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokenprune.cli._asking import SystemOption
from tokenprune.cli._benchmarks import find_benchmark
from tokenprune.cli._machine import Machine
from tokenprune.cli._output import UsageError
from tokenprune.cli._runner import SHIPPED, ModelOption, find_runner
from tokenprune.cli._video import QUESTION_HELP, VIDEO_HELP, Sampling, check_question, video_path
from tokenprune.errors import VideoError

if TYPE_CHECKING:
    from tokenprune.bench.results import Results
    from tokenprune.cli._sweep_measure import Measure

KIND = "tokenprune.sweep"
QUESTIONS = 200
NEW_TOKENS = 64


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the options said.

    Raises:
        UsageError: options of the one kind of sweep were given for the other.
    """

    video: Annotated[str | None, typer.Argument(help=VIDEO_HELP)] = None
    question: Annotated[str | None, typer.Argument(help=QUESTION_HELP)] = None
    world: Annotated[bool, typer.Option("--world", help="Ask the world benchmark's questions instead.")] = False
    questions: Annotated[
        int | None, typer.Option(help=f"With --world: how many; {QUESTIONS} where none is given.", min=1)
    ] = None
    seed: Annotated[int | None, typer.Option(help="With --world: which set of held-out clips; 0.", min=0)] = None
    sampling: Sampling
    max_new_tokens: Annotated[
        int | None, typer.Option(help=f"Length of the answer, at most; {NEW_TOKENS} where none is given.", min=1)
    ] = None
    system: SystemOption = None
    model: ModelOption = None
    machine: Machine

    def __post_init__(self) -> None:
        about_video = (self.video, self.question, self.system, self.max_new_tokens)
        if self.world and (self.sampling != Sampling() or any(value is not None for value in about_video)):
            raise UsageError(
                "--world brings its own clips, questions and lengths of answers; leave out VIDEO, QUESTION, --frames, "
                "--max-new-tokens, ..."
            )
        if self.world:
            return
        if self.questions is not None or self.seed is not None:
            raise UsageError("--questions and --seed are for --world")
        if self.video is None or self.question is None:
            raise UsageError("give VIDEO and QUESTION, or --world")
        check_question(self.question)

    def start(self, out: Path) -> tuple[Results, Measure]:
        """The results so far, and what measures a point."""
        return self._start_world(out) if self.world else self._start_question(out)

    def _start_question(self, out: Path) -> tuple[Results, Measure]:
        from tokenprune.answers import ClipQuestion
        from tokenprune.bench.results import Results, file_sha256, versions, weights_sha256
        from tokenprune.cli._sweep_measure import OneQuestion

        runner = find_runner(self.model)
        path = video_path(str(self.video), runner)
        if not Path(path).is_file():  # its hash names what was measured
            raise VideoError(f"a sweep needs one video file, not a folder: {path}")
        clip, new_tokens = self.sampling, self.max_new_tokens or NEW_TOKENS
        inputs = {
            "video_sha256": file_sha256(path),
            "question": self.question,
            "system": self.system,
            "frames": clip.frames,
            "fps": clip.fps,
            "max_pixels": clip.max_pixels,
            "max_new_tokens": new_tokens,
            "model": self.model or SHIPPED,
            **self.machine.facts(),
            **versions(),
        }
        results = Results.open(out, KIND, inputs)
        loaded = self.machine.load(runner, self.model)
        results.require("weights_sha256", weights_sha256(loaded.module))
        question = ClipQuestion(path, str(self.question), self.system, clip.frames, clip.fps, clip.max_pixels)
        return results, OneQuestion(loaded, lambda: loaded.prepare(question), new_tokens)

    def _start_world(self, out: Path) -> tuple[Results, Measure]:
        from tokenprune.bench.benchmark import BenchmarkRequest
        from tokenprune.bench.results import Results, versions
        from tokenprune.cli._sweep_measure import WorldQuestions

        machine = self.machine
        request = BenchmarkRequest(
            questions=self.questions or QUESTIONS,
            seed=self.seed or 0,
            model=self.model,
            device=machine.device,
            dtype=machine.dtype,
            attn=machine.attn,
        )
        asked = {"benchmark": "world", "questions": request.questions, "seed": request.seed}
        results = Results.open(out, f"{KIND}.world", {**asked, "model": self.model or SHIPPED, **versions()})
        return results, WorldQuestions(find_benchmark("world"), request)
