# SPDX-License-Identifier: Apache-2.0
"""``tokenprune eval egoschema``: the benchmark's own files in, its submission format out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokenprune.bench.egoschema.asking import Asker, ask_all, summary
from tokenprune.bench.egoschema.files import EgoQuestion, find_video, read_answers, read_questions, write_submission
from tokenprune.cli._machine import Machine
from tokenprune.cli._output import UsageError
from tokenprune.cli._outputs import ResultsOption, check_place
from tokenprune.cli._pipeline import PipelineChoice
from tokenprune.cli._progress import progress_bar
from tokenprune.cli._runner import SHIPPED, SHIPPED_NOTE, ModelOption, find_runner, say_note
from tokenprune.cli._video import Sampling
from tokenprune.errors import InvalidValueError, VideoError

if TYPE_CHECKING:
    from tokenprune.bench.results import Results

RESULTS = Path("egoschema_results.json")
KIND = "tokenprune.egoschema"


@dataclass(frozen=True, kw_only=True)
class Files:
    """What is asked of which videos, and where the results go."""

    videos: Annotated[Path, typer.Option(help="Directory of videos named q_uid.mp4.", metavar="DIR")]
    questions: Annotated[Path, typer.Option(help="The benchmark's questions.json.", metavar="FILE")]
    answers: Annotated[Path | None, typer.Option(help="Its subset_answers.json.", metavar="FILE")] = None
    subset: Annotated[bool, typer.Option("--subset", help="Ask only what --answers has answers for.")] = False
    out: ResultsOption = RESULTS

    def __post_init__(self) -> None:
        if self.subset and self.answers is None:
            raise UsageError("--subset needs --answers")
        if not self.videos.is_dir():
            raise UsageError(f"--videos must be a directory, got {self.videos}")
        if self.out.suffix != ".json" or self.out.is_dir() or not self.out.parent.is_dir():
            raise UsageError(f"--out must name a .json file in a directory that exists, got {self.out}")
        check_place("--out", self.out)

    def read(self) -> tuple[list[EgoQuestion], Mapping[str, int]]:
        """The questions to ask, and the right answers that are known.

        Raises:
            InvalidValueError: none of the questions has one of the answers.
            VideoError: none has a video.
        """
        right = {} if self.answers is None else read_answers(self.answers)
        asked = [each for each in read_questions(self.questions) if not self.subset or each.uid in right]
        if self.answers is not None and not any(each.uid in right for each in asked):
            raise InvalidValueError(f"no question of {self.questions} has an answer in {self.answers}")
        if not any(find_video(self.videos, each.uid).is_file() for each in asked):
            raise VideoError(f"none of the {len(asked)} questions has a video in {self.videos}")
        return asked, right


def egoschema(
    files: Files,
    choice: PipelineChoice,
    sampling: Sampling,
    machine: Machine,
    *,
    model: ModelOption = None,
    max_new_tokens: Annotated[int, typer.Option(help="Length of an answer, at most.", min=1)] = 16,
) -> Counted:
    """Answer EgoSchema's questions; the submission is written beside the results (-1: no answer).

    Every answer is written when it is given: after an interruption the same command goes on where it was. A question
    whose video cannot be read is recorded and counted as wrong, and tried again by the next run.
    """
    from tokenprune.bench.results import Results, file_sha256, versions, weights_sha256
    from tokenprune.plugins import find_adapter

    name, pipeline = choice.resolve()
    asked, right = files.read()
    chosen = {"model": model or SHIPPED, "preset": name, "pipeline": dict(pipeline.to_dict())}
    inputs = {**chosen, **asdict(sampling), "max_new_tokens": max_new_tokens, **machine.facts()}
    results = Results.open(files.out, KIND, {"questions_sha256": file_sha256(files.questions), **inputs, **versions()})
    if model is None:
        say_note(SHIPPED_NOTE)
    loaded = machine.load(find_runner(model), model)
    adapted = find_adapter(loaded.module)
    pipeline.stages(adapted.depth, adapted.readable)
    results.require("weights_sha256", weights_sha256(loaded.module))
    asker = Asker(loaded, pipeline, files.videos, sampling.frames, sampling.fps, sampling.max_pixels, max_new_tokens)
    counted = Counted(results)
    try:
        with progress_bar("questions") as progress:
            ask_all(results, asker, asked, progress)
    finally:  # an interruption leaves what there is in a form that can be used
        counted.sum_up(asked, right)
    return counted


@dataclass(frozen=True)
class Counted:
    """The answers and what they come to."""

    results: Results

    def sum_up(self, asked: Sequence[EgoQuestion], right: Mapping[str, int]) -> None:
        """Count, and write both files."""
        uids = {each.uid for each in asked}
        entries = [entry for entry in self.results.entries if entry["q_uid"] in uids]
        self.results.data["summary"] = summary(entries, right)
        self.results.save()
        write_submission(self.submission, asked, {entry["q_uid"]: entry["prediction"] for entry in entries})

    @property
    def submission(self) -> Path:
        """The file that the benchmark takes."""
        return self.results.path.with_name(f"{self.results.path.stem}_submission.json")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**self.results.data, "submission": str(self.submission)}

    def render(self) -> None:
        """Print the counts and where the files are."""
        counts = self.results.data["summary"]
        print(
            f"{counts['questions']} questions, {counts['unreadable_videos']} of them with unreadable or missing "
            f"videos, {counts['unparsed_answers']} answers that name no option"
        )
        if counts["visual_retained"] is not None:
            print(
                f"visual tokens kept: {counts['visual_retained']:.1%}, seen (mean over layers): "
                f"{counts['layer_averaged_retained']:.1%}"
            )
        share = counts["accuracy"]
        if share is not None:
            interval = f"95 % interval (Wilson) {share['low']:.1%} to {share['high']:.1%}"
            print(f"accuracy: {share['count']} of {share['total']}, {share['value']:.1%}, {interval}")
        print(f"results: {self.results.path}, submission: {self.submission}")
