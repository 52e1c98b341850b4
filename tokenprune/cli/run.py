# SPDX-License-Identifier: Apache-2.0
"""``tokenprune run``: one question about one video, answered with pruning, or with and without."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokenprune.cli._common import DebugFlag, JsonFlag, guarded, print_json
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
from tokenprune.cli._video import damage_of, reading, say_damage

if TYPE_CHECKING:
    from tokenprune.pipeline import Pipeline
    from tokenprune.runner import Answer, PreparedQuestion, VideoModel

DEMO = "demo"
SHIPPED = "shipped"
SHIPPED_NOTE = (
    "tokenprune: no --model given, so the small model that ships with tokenprune answers; "
    "it knows little beyond clips like demo"
)


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
    frames: Annotated[
        int | None,
        typer.Option(
            help="Frames to sample, evenly spread in time; no more than there are, and an odd number is rounded down.",
            min=1,
        ),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(
            help="Frames a second to sample instead (2 where neither is given); in all at least 4, at most 768."
        ),
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            help="Pixels of a frame after resizing, at most; long videos get less, and sides are whole visual tokens.",
            min=1,
        ),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Length of the answer, at most.", min=1)] = 64,
    system: Annotated[str | None, typer.Option(help="System prompt, instead of the model's own.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; a GPU where there is one.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto, float32, bfloat16 or float16.")] = None,
    attn: Annotated[str | None, typer.Option(help="Attention implementation: sdpa, eager, ...")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Answer with the plain model as well.")] = False,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Answer a question about a video with its visual tokens pruned, and show what that saved."""
    with guarded(debug, as_json):
        check_question(question, as_json)
        check_frames(frames, fps, as_json)
        choice = PipelineChoice(preset, pipeline, tau, cluster_ratio, segment_ratio, keep_ratio, layer)
        name, chosen = choice.resolve(as_json)
        if model is None:
            print(SHIPPED_NOTE, file=sys.stderr, flush=True)
        from tokenprune.cli._runner import find_runner
        from tokenprune.plugins import find_adapter
        from tokenprune.runner import ClipQuestion, video_place

        runner = find_runner(model)
        path = str(video_place(runner.demo() if video == DEMO else video))  # before a large model is loaded
        with _progress() as say:
            say("loading the model")
            loaded = runner.load(model, device, dtype, attn)
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

    result = answer_to_dict(pruned)
    beside = None if plain is None else answer_to_dict(plain)
    if as_json:
        compared = {}
        if plain is not None:
            compared = {"plain": beside, "same_answer": plain.token_ids == pruned.token_ids}
        print_json({**asked, **result, **compared})
        return
    from rich.console import Console

    if beside is None:
        print(pruned.text)
    Console(highlight=False, markup=False).print(answer_table(result, beside))


@contextmanager
def _progress() -> Generator[Callable[[str], None], None, None]:
    """What is being done, on stderr, where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield status.update
