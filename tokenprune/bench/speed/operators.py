# SPDX-License-Identifier: Apache-2.0
"""The micro-benchmark of the operators: each alone, on clips of Qwen2.5-VL's size, all in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from tokenprune.bench.speed.content import scene_features
from tokenprune.bench.speed.figures import Figure, Progress, Sample, interleave
from tokenprune.bench.speed.machine import describe_machine
from tokenprune.bench.speed.operators_clip import Clip
from tokenprune.bench.speed.operators_counting import Counted, Key, label
from tokenprune.bench.speed.operators_prefill import DecoderLayer
from tokenprune.bench.speed.operators_request import OperatorsRequest
from tokenprune.bench.speed.operators_result import CaseResult, Growth, OperatorsResult, SubjectCost
from tokenprune.bench.speed.operators_shares import prefill_seconds
from tokenprune.bench.speed.operators_subjects import DIRECT, FRAME_PAIRS, MERGE, PLAN, subjects_of
from tokenprune.bench.speed.subject import Subject

INSTANT = 1e-9
"""Seconds; the least that is left of a run when a part of it, timed apart, is taken off."""


def measure_operators(request: OperatorsRequest, progress: Progress | None = None) -> OperatorsResult:
    """Measure every operator on every clip; all subjects of all clips take turns in each round.

    A run of its own comes first in which operations are counted, so nothing is timed that has not run once. The
    shorter clips are the beginning of the longest, so one tensor of features is all that is held.
    """
    with torch.no_grad():
        clips, layer = _clips(request), _layer(request)
        subjects = {
            (frames, name): subject
            for frames, clip in clips.items()
            for name, subject in subjects_of(clip, direct=request.measures_direct(frames), layer=layer).items()
        }
        counted = Counted(subjects, request)
        total = len(subjects) * (1 + request.warmup + request.rounds)
        failed = counted.run(_part(progress, 0, total))
        left = [key for key in subjects if key in counted.dispatched and label(key) not in counted.slow]
        skipped = (len(subjects) - len(left)) * (request.warmup + request.rounds)
        runs = {label(key): _timed_run(request, subjects[key]) for key in left}
        timings = interleave(runs, request.rounds, request.warmup, _part(progress, len(subjects) + skipped, total))
        seconds = {key: timings.figures[label(key)]["seconds"] for key in left if label(key) in timings.figures}
    return OperatorsResult(
        setting=_setting(request),
        machine=describe_machine(request.device),
        cases=[_case(clip.grid, counted, seconds, request) for clip in clips.values()],
        growth=_growth(request.frames, seconds),
        unreachable={**failed, **counted.slow, **timings.failed},
    )


def _layer(request: OperatorsRequest) -> DecoderLayer | None:
    if request.layers == 0:
        return None
    return DecoderLayer.random(request.width, request.intermediate, request.attention, request.device, request.dtype)


def _clips(request: OperatorsRequest) -> dict[int, Clip]:
    longest = (request.frames[-1], request.rows, request.columns)
    features = scene_features(longest, request.width, static=request.static, dtype=request.dtype, device=request.device)
    return {
        frames: Clip(features[: frames * request.length], (frames, *longest[1:]), request.attention)
        for frames in request.frames
    }


def _part(progress: Progress | None, before: int, total: int) -> Progress | None:
    """The progress of a part of the work, ``before`` runs having been done."""
    return None if progress is None else lambda done, _: progress(before + done, total)


def _timed_run(request: OperatorsRequest, subject: Subject) -> Callable[[], Sample]:
    def run() -> Sample:
        _, seconds = request.timed(subject.ready())
        return {"seconds": seconds}

    return run


def _case(
    grid: tuple[int, int, int], counted: Counted, seconds: Mapping[Key, Figure], request: OperatorsRequest
) -> CaseResult:
    mine = {name: figure for (frames, name), figure in seconds.items() if frames == grid[0]}
    prefill, measured = prefill_seconds(grid[0], seconds, request)

    def share(figure: Figure) -> Figure | None:
        return None if prefill is None else figure.over(prefill)

    costs = [
        SubjectCost(name, figure, counted.dispatched[grid[0], name], counted.kept[grid[0], name], share(figure))
        for name, figure in mine.items()
    ]
    ratios: dict[str, Figure] = {}
    if MERGE in mine and DIRECT in mine:
        ratios[f"{MERGE} / {DIRECT}"] = mine[MERGE].over(mine[DIRECT])
    return CaseResult(grid, costs, ratios, counted.same_tokens(grid[0]), measured)


def _growth(frames: Sequence[int], seconds: Mapping[Key, Figure]) -> list[Growth]:
    per_frame: dict[int, Figure] = {}
    apart: dict[int, Figure] = {}
    for count in frames:
        if (count, PLAN) in seconds and (count, FRAME_PAIRS) in seconds:
            plan, pairs = seconds[count, PLAN].values, seconds[count, FRAME_PAIRS].values
            per_frame[count] = Figure(tuple(value / count for value in plan))
            rest = (max(value - pair, INSTANT) for value, pair in zip(plan, pairs))
            apart[count] = Figure(tuple(value / count for value in rest))
    if not per_frame:
        return []
    longest = max(per_frame)
    return [
        Growth(longest, count, per_frame[longest].over(per_frame[count]), apart[longest].over(apart[count]))
        for count in per_frame
        if count < longest
    ]


def _setting(request: OperatorsRequest) -> dict[str, Any]:
    return {
        "frames": list(request.frames),
        "rows": request.rows,
        "columns": request.columns,
        "width": request.width,
        "static": request.static,
        "rounds": request.rounds,
        "warmup": request.warmup,
        "direct_up_to": request.direct_up_to,
        "device": request.device.type,
        "dtype": str(request.dtype).removeprefix("torch."),
        "attention": asdict(request.attention),
        "intermediate": request.intermediate,
        "layers": request.layers,
        "limit": request.limit,
        "clock": request.clock,
    }
