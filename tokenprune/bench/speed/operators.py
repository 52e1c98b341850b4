# SPDX-License-Identifier: Apache-2.0
"""The micro-benchmark of the operators: each alone, on clips of Qwen2.5-VL's size, all in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from tokenprune.bench.speed.clock import timed
from tokenprune.bench.speed.content import scene_features
from tokenprune.bench.speed.dispatched import Dispatched, count_dispatched
from tokenprune.bench.speed.figures import Figure, Progress, Sample, interleave
from tokenprune.bench.speed.machine import describe_machine
from tokenprune.bench.speed.operators_request import OperatorsRequest
from tokenprune.bench.speed.operators_result import CaseResult, Growth, OperatorsResult, SubjectCost
from tokenprune.bench.speed.operators_subjects import (
    DIRECT,
    FRAME_PAIRS,
    MERGE,
    PLAN,
    Clip,
    Subject,
    subjects_of,
)

Key = tuple[int, str]
"""Frames of the clip and name of the subject."""

INSTANT = 1e-9
"""Seconds; the least that is left of a run when a part of it, timed apart, is taken off."""


def measure_operators(request: OperatorsRequest, progress: Progress | None = None) -> OperatorsResult:
    """Measure every operator on every clip; all subjects of all clips take turns in each round.

    A run of its own comes first in which operations are counted, so nothing is timed that has not run once. The
    shorter clips are the beginning of the longest, so one tensor of features is all that is held.
    """
    with torch.no_grad():
        clips = _clips(request)
        subjects = {
            (frames, name): subject
            for frames, clip in clips.items()
            for name, subject in subjects_of(clip, direct=request.measures_direct(frames)).items()
        }
        counted = _Counted(subjects, request.device)
        total = len(subjects) * (1 + request.warmup + request.rounds)
        failed = counted.run(_part(progress, 0, total))
        left = [key for key in subjects if key in counted.dispatched]
        skipped = (len(subjects) - len(left)) * (request.warmup + request.rounds)
        runs = {_label(key): _timed_run(request.device, subjects[key]) for key in left}
        timings = interleave(runs, request.rounds, request.warmup, _part(progress, len(subjects) + skipped, total))
        seconds = {key: timings.figures[_label(key)]["seconds"] for key in left if _label(key) in timings.figures}
    return OperatorsResult(
        setting=_setting(request),
        machine=describe_machine(request.device),
        cases=[_case(clip.grid, counted, seconds) for clip in clips.values()],
        growth=_growth(request.frames, seconds),
        unreachable={**failed, **timings.failed},
    )


class _Counted:
    """The first run of every subject, in which operations and kept tokens are counted."""

    def __init__(self, subjects: Mapping[Key, Subject], device: torch.device) -> None:
        self._subjects = subjects
        self._device = device
        self.dispatched: dict[Key, Dispatched] = {}
        self.kept: dict[Key, int | None] = {}
        self._anchors: dict[Key, Tensor] = {}

    def run(self, progress: Progress | None) -> Mapping[str, str]:
        """Count; returns the subjects that ran out of memory, with the reason."""
        runs = {_label(key): self._counting(key) for key in self._subjects}
        return interleave(runs, rounds=1, warmup=0, progress=progress).failed

    def same_tokens(self, frames: int) -> bool | None:
        """Whether STMerge and the direct implementation kept the same tokens; None if one of them did not run."""
        mine, its = self._anchors.get((frames, PLAN)), self._anchors.get((frames, DIRECT))
        return None if mine is None or its is None else torch.equal(mine, its)

    def _counting(self, key: Key) -> Callable[[], Sample]:
        def run() -> Sample:
            subject = self._subjects[key]
            result, self.dispatched[key] = count_dispatched(subject.ready(), self._device)
            self.kept[key] = len(result) if subject.keeps else None
            if key[1] in (PLAN, DIRECT):
                self._anchors[key] = result
            return {}

        return run


def _clips(request: OperatorsRequest) -> dict[int, Clip]:
    longest = (request.frames[-1], request.rows, request.columns)
    features = scene_features(longest, request.width, static=request.static, dtype=request.dtype, device=request.device)
    return {
        frames: Clip(features[: frames * request.length], (frames, *longest[1:]), request.attention)
        for frames in request.frames
    }


def _label(key: Key) -> str:
    return f"{key[0]} frames: {key[1]}"


def _part(progress: Progress | None, before: int, total: int) -> Progress | None:
    """The progress of a part of the work, ``before`` runs having been done."""
    return None if progress is None else lambda done, _: progress(before + done, total)


def _timed_run(device: torch.device, subject: Subject) -> Callable[[], Sample]:
    def run() -> Sample:
        _, seconds = timed(device, subject.ready())
        return {"seconds": seconds}

    return run


def _case(grid: tuple[int, int, int], counted: _Counted, seconds: Mapping[Key, Figure]) -> CaseResult:
    mine = {name: figure for (frames, name), figure in seconds.items() if frames == grid[0]}
    costs = [
        SubjectCost(name, figure, counted.dispatched[grid[0], name], counted.kept[grid[0], name])
        for name, figure in mine.items()
    ]
    ratios: dict[str, Figure] = {}
    if MERGE in mine and DIRECT in mine:
        ratios[f"{MERGE} / {DIRECT}"] = mine[MERGE].over(mine[DIRECT])
    return CaseResult(grid, costs, ratios, counted.same_tokens(grid[0]))


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
    }
