# SPDX-License-Identifier: Apache-2.0
"""``tokenprune run``: one question about one video, answered with pruning, or with and without."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
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
from tokenprune.messages import meant

if TYPE_CHECKING:
    from tokenprune.answers import Answer
    from tokenprune.bench.runner import PreparedQuestion, VideoModel
    from tokenprune.pipeline import Pipeline

DEMO = "demo"
SHIPPED = "shipped"
SHIPPED_NOTE = (
    "tokenprune: no --model given, so the small model that ships with tokenprune answers; "
    "it knows little beyond clips like demo"
)
_NAMED = 8


def run(
    video: Annotated[str, typer.Argument(help=f"A video file, or {DEMO}: a clip that ships with tokenprune.")],
    question: Annotated[str, typer.Argument(help="What to ask about it.")],
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
    compare: Annotated[bool, typer.Option("--compare", help="Answer with the plain model as well.")] = False,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Answer a question about a video with its visual tokens pruned, and show what that saved."""
    with guarded(debug, as_json):
        machine = Machine.check(device, dtype, attn, as_json)
        check_pixels(max_pixels, as_json)
        check_question(question, as_json)
        check_frames(frames, fps, as_json)
        choice = PipelineChoice(preset, pipeline, tau, cluster_ratio, segment_ratio, keep_ratio, layer)
        name, chosen = choice.resolve(as_json)
        from tokenprune.answers import ClipQuestion
        from tokenprune.bench.runner import damage_of
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
            prepared = loaded.prepare(ClipQuestion(path, question, system, frames, fps, max_pixels, reading(say)))
            say_damage(video, prepared)
            say("answering")
            pruned, plain = _answers(loaded, prepared, chosen, max_new_tokens, compare)
        damage = damage_of(prepared)
        asked = {
            "video": video,
            "question": question,
            "model": model or SHIPPED,
            "preset": name,
            "pipeline": chosen.to_dict(),
            "frames": prepared.frames,
            "sampled_fps": prepared.sampled_fps,
            "damage": None if damage is None else dict(damage.to_dict()),
        }
        _show(asked, pruned, plain, as_json)


def shipped_note(unknown: Sequence[str]) -> str:
    """That the shipped model answers; with the words of the question that it does not know."""
    if not unknown:
        return SHIPPED_NOTE
    more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
    return f"{SHIPPED_NOTE}, and not the words: {', '.join(unknown[:_NAMED])}{more}"


def check_question(question: str, as_json: bool) -> None:
    """Raise :class:`UsageError` for an empty question."""
    if not question.strip():
        raise UsageError("QUESTION must not be empty", as_json)


def check_frames(frames: int | None, fps: float | None, as_json: bool) -> None:
    """Raise :class:`UsageError` for a number of frames together with a rate, or a rate that is none."""
    if frames is not None and fps is not None:
        raise UsageError("choose one of --frames and --fps", as_json)
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise UsageError(f"--fps must be a number above 0, got {fps}", as_json)


def _answers(
    model: VideoModel, prepared: PreparedQuestion, pipeline: Pipeline, max_new_tokens: int, compare: bool
) -> tuple[Answer, Answer | None]:
    if not compare:
        return model.answer(prepared, pipeline, max_new_tokens), None
    # The first call of each kind also pays for setting up kernels and buffers; it is not the one that counts.
    model.answer(prepared, None, 1)
    plain = model.answer(prepared, None, max_new_tokens)
    model.answer(prepared, pipeline, 1)
    return model.answer(prepared, pipeline, max_new_tokens), plain


def _show(asked: dict[str, Any], pruned: Answer, plain: Answer | None, as_json: bool) -> None:
    from tokenprune.cli._answer import answer_table, answer_to_dict
    from tokenprune.cli._saving import saving

    result = answer_to_dict(pruned)
    beside = None if plain is None else answer_to_dict(plain)
    same = None if plain is None else plain.token_ids == pruned.token_ids
    saved = saving(result, beside, same)
    if as_json:
        compared = {} if beside is None else {"plain": beside, "same_answer": same}
        print_json({**asked, **result, **compared, "saving": None if saved is None else saved.to_dict()})
        return
    from rich.console import Console

    if beside is None:
        print(pruned.text)
    Console(highlight=False, markup=False).print(answer_table(result, beside))
    if saved is not None:
        print(saved.line())


@contextmanager
def _progress() -> Generator[Callable[[str], None], None, None]:
    """What is being done, on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield status.update
