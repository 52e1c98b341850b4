# SPDX-License-Identifier: Apache-2.0
"""The options of the commands that ask one question about one video, and everything up to its answer."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from tokenprune.cli._machine import Machine
from tokenprune.cli._pipeline import PipelineChoice
from tokenprune.cli._progress import status
from tokenprune.cli._runner import SHIPPED, ModelOption, find_runner, say_note, shipped_note
from tokenprune.cli._video import QUESTION_HELP, VIDEO_HELP, Sampling, check_question, reading, say_damage, video_path

if TYPE_CHECKING:
    from tokenprune.answers import Answer, ClipQuestion
    from tokenprune.bench.runner import PreparedQuestion, VideoModel
    from tokenprune.pipeline import Pipeline

SystemOption = Annotated[str | None, typer.Option(help="System prompt, instead of the model's own.")]


@dataclass(frozen=True, kw_only=True)
class Asking:
    """What the options said.

    Raises:
        UsageError: an empty question.
    """

    video: Annotated[str, typer.Argument(help=VIDEO_HELP)]
    question: Annotated[str, typer.Argument(help=QUESTION_HELP)]
    model: ModelOption = None
    choice: PipelineChoice
    sampling: Sampling
    max_new_tokens: Annotated[int, typer.Option(help="Length of the answer, at most.", min=1)] = 64
    system: SystemOption = None
    machine: Machine

    def __post_init__(self) -> None:
        check_question(self.question)

    @property
    def model_name(self) -> str:
        """The model's, for people."""
        return self.model or SHIPPED

    @contextmanager
    def prepared(self) -> Generator[Prepared, None, None]:
        """Choose the pipeline, load the model and read the video, saying so; what is cheap to refuse comes first."""
        name, pipeline = self.choice.resolve()
        from tokenprune.answers import ClipQuestion
        from tokenprune.plugins import find_adapter

        runner = find_runner(self.model)
        if self.model is None:
            say_note(shipped_note(runner.unknown_words(self.question)))
        path = video_path(self.video, runner)
        with status() as say:
            say("loading the model")
            model = self.machine.load(runner, self.model)
            adapted = find_adapter(model.module)
            pipeline.stages(adapted.depth, adapted.readable)
            say("reading the video")
            clip = self.sampling
            question = ClipQuestion(
                path, self.question, self.system, clip.frames, clip.fps, clip.max_pixels, reading(say)
            )
            ready = model.prepare(question)
            say_damage(self.video, ready)
            say("answering")
            yield Prepared(name, pipeline, model, question, ready, self.max_new_tokens, say)


@dataclass(frozen=True)
class Prepared:
    """All that an answer needs.

    Args:
        name: of the pipeline.
        pipeline: checked against the model's depth.
        model: loaded.
        question: as it was asked.
        ready: the question with its frames.
        max_new_tokens: length of the answer, at most.
        say: shows what is being done.
    """

    name: str
    pipeline: Pipeline
    model: VideoModel
    question: ClipQuestion
    ready: PreparedQuestion
    max_new_tokens: int
    say: Callable[[str], None]

    def pruned(self) -> Answer:
        """The answer with the pipeline."""
        return self.model.answer(self.ready, self.pipeline, self.max_new_tokens)

    def compared(self) -> tuple[Answer, Answer]:
        """The answers with the pipeline and of the plain model."""
        # The first call of each kind also pays for setting up kernels and buffers; it is not the one that counts.
        self.model.answer(self.ready, None, 1)
        plain = self.model.answer(self.ready, None, self.max_new_tokens)
        self.model.answer(self.ready, self.pipeline, 1)
        return self.pruned(), plain
