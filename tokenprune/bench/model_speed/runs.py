# SPDX-License-Identifier: Apache-2.0
"""One run of one subject: the vision encoder, the plain model, a pipeline."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from tokenprune.bench.model_speed.clock import AnswerClock
from tokenprune.bench.model_speed.prompt import SpeedPrompt
from tokenprune.bench.speed.clock import timed
from tokenprune.bench.speed.figures import Sample
from tokenprune.bench.speed.memory import PeakMemory
from tokenprune.bench.speed.result import Role
from tokenprune.errors import UnsupportedModeError
from tokenprune.hf.frontend.family import Parts
from tokenprune.hf.frontend.next_token import GREEDY
from tokenprune.pipeline import Pipeline

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Bench:
    """What every run shares.

    Args:
        parts: the model.
        prompt: what it is asked.
        pixels: of the clips, on the CPU, so that they are in no run's memory but the vision encoder's.
        new_tokens: tokens that are decoded after the first.
    """

    parts: Parts
    prompt: SpeedPrompt
    pixels: Tensor
    new_tokens: int

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.parts.model.device

    @property
    def unshortened(self) -> list[list[int]]:
        """Per decoder layer the tokens of each row where nothing is removed."""
        return [[self.prompt.length] * self.prompt.rows for _ in self.parts.text.layers]


@dataclass(frozen=True)
class Facts:
    """What a run computed and stored; the same in every run.

    Args:
        layer_tokens: per decoder layer the tokens it computed, per row.
        longest: tokens of the longest row in the cache after the prefill.
        kv_bytes: measured in the cache then; None where it is not what the formula is about.
        stages: of a pipeline, as its report has them.
    """

    layer_tokens: Sequence[Sequence[int]]
    longest: int
    kv_bytes: int | None
    stages: Sequence[Mapping[str, Any]] = ()


@dataclass(eq=False)
class Subject:
    """Somebody to be measured.

    Args:
        name: unique.
        role: what it is.
        run: one run.
        pipeline: that it belongs to.
        facts: of the last run; None before the first.
    """

    name: str
    role: Role
    run: Callable[[], tuple[Sample, Facts]]
    pipeline: Pipeline | None = None
    facts: Facts | None = None

    def __call__(self) -> Sample:
        """One run; what it measured."""
        sample, self.facts = self.run()
        return sample


def run_vision(bench: Bench) -> Sample:
    """Encode all clips of the batch."""
    gc.collect()
    tower = bench.parts.tower
    with PeakMemory(bench.device) as peak:
        pixels = bench.pixels.to(bench.device, tower.dtype)
        _, seconds = timed(bench.device, lambda: bench.prompt.encoded(bench.parts, pixels))
    return {"seconds": seconds, **peak_of(peak)}


def run_plain(bench: Bench) -> tuple[Sample, Facts]:
    """One answer of the model as it is, without any session."""
    sample, _, kv_bytes = timed_answer(bench, nullcontext())
    return sample, Facts(bench.unshortened, bench.prompt.length, kv_bytes)


def run_pipeline(bench: Bench, pipeline: Pipeline) -> tuple[Sample, Facts]:
    """One answer through a session of its own; attaching and detaching are not in the times."""
    from tokenprune import attach

    sample, session, kv_bytes = timed_answer(bench, attach(bench.parts.model, pipeline))
    report = session.report
    if report is None:
        raise UnsupportedModeError("the session wrote no report, so the prompt did not pass through the pipeline")
    stages = report.stages
    seconds = {operator_seconds(place): stage["seconds"] for place, stage in enumerate(stages)}
    longest = max(len(columns) for columns in report.kept)
    return {**sample, **seconds}, Facts(report.layer_tokens, longest, kv_bytes, stages)


def operator_seconds(place: int) -> str:
    """Name of the time of a pipeline's operator at this place."""
    return f"operator_{place}_seconds"


def timed_answer(bench: Bench, way: AbstractContextManager[T]) -> tuple[dict[str, float], T, int | None]:
    """Generate greedily, with the clips encoded already, and time it.

    Args:
        bench: the model and the prompt.
        way: opened around it; what it puts on the model is inside the times, opening it is not.

    Returns:
        What was measured, what `way` gave, and the bytes of the KV cache right after the prefill.
    """
    gc.collect()  # what the run before has left in circles would be in this one's memory
    clock = AnswerClock(bench.device)
    model = bench.parts.model
    inputs = bench.prompt.inputs()
    count = bench.new_tokens + 1
    seen, watched = bench.prompt.shown(bench.parts), clock.watching(bench.parts)
    with way as opened, seen, watched, PeakMemory(bench.device) as peak:
        clock.start()
        runnable: Any = model  # the library types generate by what it can be bound to
        runnable.generate(
            **inputs,
            streamer=clock,
            max_new_tokens=count,
            min_new_tokens=count,  # random weights, too, may say that they are done
            **GREEDY.options(),
        )
    if clock.new_tokens != count:
        raise UnsupportedModeError(f"the model gave {clock.new_tokens} tokens where {count} were asked for")
    seconds = clock.seconds()
    rate = bench.prompt.rows * bench.new_tokens / seconds.pop("decode_seconds")
    return {**seconds, "decode_tokens_per_second": rate, **peak_of(peak)}, opened, clock.kv_bytes


def peak_of(peak: PeakMemory) -> dict[str, float]:
    """The peak as a quantity, where it is known."""
    return {} if peak.bytes is None else {"peak_memory_bytes": peak.bytes}
