# SPDX-License-Identifier: Apache-2.0
"""``tokenprune eval egoschema``: the benchmark's own files in, its submission format out."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokenprune.bench.egoschema.asking import Asker, ask_all, summary
from tokenprune.bench.egoschema.files import EgoQuestion, find_video, read_answers, read_questions, write_submission
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
from tokenprune.cli._progress import progress_bar
from tokenprune.cli._usage import UsageError
from tokenprune.cli._video import FpsOption, FramesOption
from tokenprune.cli.run import SHIPPED, SHIPPED_NOTE, check_frames
from tokenprune.errors import InvalidValueError, VideoError

if TYPE_CHECKING:
    from tokenprune.bench.results import Results
    from tokenprune.bench.runner import VideoModel

RESULTS = Path("egoschema_results.json")
KIND = "tokenprune.egoschema"


def egoschema(
    videos: Annotated[Path, typer.Option(help="Directory of videos named q_uid.mp4.", metavar="DIR")],
    questions: Annotated[Path, typer.Option(help="The benchmark's questions.json.", metavar="FILE")],
    answers: Annotated[Path | None, typer.Option(help="Its subset_answers.json.", metavar="FILE")] = None,
    subset: Annotated[bool, typer.Option("--subset", help="Ask only what --answers has answers for.")] = False,
    out: Annotated[Path, typer.Option(help="Results; a file that is there is gone on with.", metavar="FILE")] = RESULTS,
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
    max_new_tokens: Annotated[int, typer.Option(help="Length of an answer, at most.", min=1)] = 16,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    attn: AttnOption = None,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Answer EgoSchema's questions; the submission is written beside the results (-1: no answer).

    Every answer is written when it is given: after an interruption the same command goes on where it was. A question
    whose video cannot be read is recorded and counted as wrong, and tried again by the next run.
    """
    with guarded(debug, as_json):
        machine = Machine.check(device, dtype, attn, as_json)
        check_pixels(max_pixels, as_json)
        check_frames(frames, fps, as_json)
        _check_files(videos, out, subset and answers is None, as_json)
        choice = PipelineChoice(preset, pipeline, tau, cluster_ratio, segment_ratio, keep_ratio, layer)
        name, chosen = choice.resolve(as_json)
        right = {} if answers is None else read_answers(answers)
        asked = [each for each in read_questions(questions) if not subset or each.uid in right]
        if answers is not None and not any(each.uid in right for each in asked):
            raise InvalidValueError(f"no question of {questions} has an answer in {answers}")
        if not any(find_video(videos, each.uid).is_file() for each in asked):
            raise VideoError(f"none of the {len(asked)} questions has a video in {videos}")
        inputs = {
            "model": model or SHIPPED,
            "preset": name,
            "pipeline": dict(chosen.to_dict()),
            "frames": frames,
            "fps": fps,
            "max_pixels": max_pixels,
            "max_new_tokens": max_new_tokens,
            "device": machine.device,
            "dtype": machine.dtype,
            "attention": machine.attn,
        }
        results, loaded = _open(out, questions, model, inputs)
        asker = Asker(loaded, chosen, videos, frames, fps, max_pixels, max_new_tokens)
        try:
            with progress_bar("questions") as progress:
                ask_all(results, asker, asked, progress)
        finally:  # an interruption leaves what there is in a form that can be used
            _sum_up(results, asked, right)
        _show(results, as_json)


def _open(out: Path, questions: Path, model: str | None, inputs: dict[str, Any]) -> tuple[Results, VideoModel]:
    from tokenprune.bench.results import Results, file_sha256, versions, weights_sha256
    from tokenprune.cli._runner import find_runner
    from tokenprune.pipeline import Pipeline
    from tokenprune.plugins import find_adapter

    results = Results.open(out, KIND, {"questions_sha256": file_sha256(questions), **inputs, **versions()})
    if model is None:
        print(SHIPPED_NOTE, file=sys.stderr, flush=True)
    loaded = find_runner(model).load(model, inputs["device"], inputs["dtype"], inputs["attention"])
    Pipeline.from_dict(inputs["pipeline"]).layers(find_adapter(loaded.module).depth)
    results.require("weights_sha256", weights_sha256(loaded.module))
    return results, loaded


def _check_files(videos: Path, out: Path, no_answers: bool, as_json: bool) -> None:
    if no_answers:
        raise UsageError("--subset needs --answers", as_json)
    if not videos.is_dir():
        raise UsageError(f"--videos must be a directory, got {videos}", as_json)
    if out.suffix != ".json" or out.is_dir() or not out.parent.is_dir():
        raise UsageError(f"--out must name a .json file in a directory that exists, got {out}", as_json)


def _sum_up(results: Results, asked: Sequence[EgoQuestion], right: Mapping[str, int]) -> None:
    uids = {each.uid for each in asked}
    entries = [entry for entry in results.entries if entry["q_uid"] in uids]
    results.data["summary"] = summary(entries, right)
    results.save()
    predictions = {entry["q_uid"]: entry["prediction"] for entry in entries}
    write_submission(_submission(results.path), asked, predictions)


def _submission(out: Path) -> Path:
    return out.with_name(f"{out.stem}_submission.json")


def _show(results: Results, as_json: bool) -> None:
    counts = results.data["summary"]
    if as_json:
        print_json({**results.data, "submission": str(_submission(results.path))})
        return
    print(
        f"{counts['questions']} questions, {counts['unreadable_videos']} of them with unreadable or missing videos, "
        f"{counts['unparsed_answers']} answers that name no option"
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
    print(f"results: {results.path}, submission: {_submission(results.path)}")
