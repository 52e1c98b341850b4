# SPDX-License-Identifier: Apache-2.0
"""Everything of a request, measured in turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tokenprune.bench.demo import demo_clip
from tokenprune.bench.model_speed.clip_kind import clip_kind
from tokenprune.bench.model_speed.eager_baseline import cuts_of, run_eager_baseline
from tokenprune.bench.model_speed.lower_bound import run_lower_bound
from tokenprune.bench.model_speed.prompt import make_prompt, random_features, require_room
from tokenprune.bench.model_speed.rows import Figures, make_row, with_vision
from tokenprune.bench.model_speed.runs import Bench, Subject, run_pipeline, run_plain, run_vision
from tokenprune.bench.model_speed.shapes import build
from tokenprune.bench.model_speed.trace import write_traces
from tokenprune.bench.speed.figures import Interleaved, Progress, Sample, interleave
from tokenprune.bench.speed.machine import describe_machine
from tokenprune.bench.speed.request import SpeedRequest
from tokenprune.bench.speed.result import SpeedResult, SpeedRow
from tokenprune.errors import InvalidValueError
from tokenprune.hf.frontend.auto import AUTO
from tokenprune.hf.frontend.family import Family, Parts
from tokenprune.hf.frontend.loading import device_named, load
from tokenprune.messages import shown

VISION = "vision encoder"
PLAIN = "plain"


def measure(family: Family, request: SpeedRequest, progress: Progress | None = None) -> SpeedResult:
    """Measure the plain model, each pipeline, its lower bound and its eager baseline, and the vision encoder, in turn.

    Each run generates one answer with the clips encoded already; the encoder does the same for everyone, runs once a
    round, and its time is added to the answers of its round.

    Args:
        family: whose models are measured, and whose clip is shown, where it has one.
        request: what is to be measured.
        progress: told after each run; traces are not counted.

    Raises:
        InvalidValueError: an unknown shape, a device other than a CPU or a CUDA GPU, a prompt that is too long, or a
            pipeline that is named like another row.
        ModelLoadError: the model cannot be loaded or built.
    """
    _check_names(request)
    loaded = _load(family, request)
    bench = _bench(loaded, demo_clip(family), request)
    subjects = _subjects(bench, request)
    runs: dict[str, Callable[[], Sample]] = {VISION: partial(run_vision, bench)}
    runs.update({subject.name: subject for subject in subjects})
    found = interleave(runs, request.rounds, request.warmup, progress)
    if VISION in found.failed:
        raise InvalidValueError(f"grid {request.grid} is too large for the vision encoder: {found.failed[VISION]}")
    unreachable = dict(found.failed)
    if request.profile is not None:
        able = {name: run for name, run in runs.items() if name not in found.failed}
        failed = write_traces(able, request.profile, bench.device)
        unreachable.update({f"trace of {name}": reason for name, reason in failed.items()})
    return SpeedResult(
        setting=_setting(loaded, bench, request),
        machine=describe_machine(bench.device),
        vision=found.figures[VISION],
        rows=_rows(bench, subjects, found),
        unreachable=unreachable,
    )


@dataclass(frozen=True, eq=False)
class _Loaded:
    """A model, its video processor, and what it is called."""

    parts: Parts
    processor: Any
    name: str
    is_random: bool


def _check_names(request: SpeedRequest) -> None:
    for name in request.pipelines:
        if name in (PLAIN, VISION) or name.startswith(("lower bound: ", "eager baseline: ")):
            raise InvalidValueError(f"a pipeline must not be named like another row, got {shown(name)}")


def _load(family: Family, request: SpeedRequest) -> _Loaded:
    device = device_named(request.device)
    if device.type not in ("cpu", "cuda"):
        raise InvalidValueError(f"speed is measured on cpu and cuda, got device {shown(str(device))}")
    if request.shape is not None:
        parts = AUTO.parts(build(request.shape, device, request.dtype, request.attn))
        config: Any = parts.model.config
        return _Loaded(parts, clip_kind(config).processor(config), request.shape, True)
    made = load(family, request.model, str(device), request.dtype, request.attn)
    name = "shipped" if request.model is None else request.model
    if Path(name).exists():  # an id stays whole, of a path only the end is anybody's business
        name = Path(name).resolve().name
    return _Loaded(made.parts, made.processor.video_processor, name, False)


def _bench(loaded: _Loaded, video: Path, request: SpeedRequest) -> Bench:
    parts = loaded.parts
    require_room(parts, request)
    tower, kind = parts.tower, clip_kind(parts.model.config)
    pixels = kind.pixels(loaded.processor, video, request.grid, request.batch).to(tower.dtype)
    prompt = make_prompt(parts, request, pixels)
    features = random_features(parts, request) if loaded.is_random else prompt.encoded(parts, pixels.to(tower.device))
    return Bench(parts, prompt.showing(features), pixels, request.new_tokens)


def _subjects(bench: Bench, request: SpeedRequest) -> list[Subject]:
    """The plain model first, and each pipeline before what is measured beside it."""
    layers = bench.parts.text.layers
    readable = [index for index, layer in enumerate(layers) if hasattr(layer, "self_attn")]
    subjects = [Subject(PLAIN, "plain", partial(run_plain, bench))]
    for name, pipeline in request.pipelines.items():
        cuts = cuts_of(pipeline, len(layers), readable)
        pruned = Subject(name, "pipeline", partial(run_pipeline, bench, pipeline), pipeline)
        subjects.append(pruned)
        if len(pipeline):
            run = partial(run_lower_bound, bench, pruned)
            subjects.append(Subject(f"lower bound: {name}", "lower bound", run, pipeline))
        if cuts and request.eager_baseline:
            run = partial(run_eager_baseline, bench, cuts)
            subjects.append(Subject(f"eager baseline: {name}", "eager baseline", run, pipeline))
    return subjects


def _rows(bench: Bench, subjects: list[Subject], found: Interleaved) -> list[SpeedRow]:
    vision = found.figures[VISION]["seconds"]
    figures: dict[str, Figures] = {
        name: with_vision(own, vision) for name, own in found.figures.items() if name != VISION
    }
    return [
        make_row(
            bench,
            subject,
            subject.facts,
            figures[subject.name],
            None if subject.role == "plain" else figures.get(PLAIN),
            figures.get(f"lower bound: {subject.name}"),
        )
        for subject in subjects
        if subject.name in figures and subject.facts is not None
    ]


def _setting(loaded: _Loaded, bench: Bench, request: SpeedRequest) -> dict[str, Any]:
    model, prompt = bench.parts.model, bench.prompt
    return {
        "model": loaded.name,
        "weights": "random" if loaded.is_random else "checkpoint",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "dtype": str(model.dtype).removeprefix("torch."),
        "attention": bench.parts.text.config._attn_implementation,
        "device": bench.device.type,
        "grid": list(request.grid),
        "prompt_tokens": prompt.length,
        "visual_tokens": prompt.visual_tokens,
        "text": request.text,
        "batch": request.batch,
        "new_tokens": request.new_tokens,
        "static": request.static if loaded.is_random else None,
        "rounds": request.rounds,
        "warmup": request.warmup,
    }
