# SPDX-License-Identifier: Apache-2.0
"""What a sweep measures at each point: one question about one video, or the questions of the world benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

from tokenprune.cli._sweep_grid import Point, pipeline_of

if TYPE_CHECKING:
    from tokenprune.answers import Answer
    from tokenprune.bench.benchmark import Benchmark, BenchmarkRequest, BenchmarkResult
    from tokenprune.bench.results import Results
    from tokenprune.bench.runner import PreparedQuestion, VideoModel

POINT = "point"
Numbers = Mapping[str, Any]
"""What is measured at one point, JSON-ready."""


class Measure(Protocol):
    """Something that every point of a grid is measured by."""

    def begin(self, results: Results, waiting: Sequence[Point]) -> Callable[[Point], Numbers]:
        """Do what comes before the first of the points that are still to be measured; the rest is done for each."""
        ...


@dataclass(frozen=True)
class OneQuestion:
    """One question about one video, which is decoded and encoded once.

    Args:
        model: the loaded model.
        prepare: reads the video; called only where something is still to be measured.
        max_new_tokens: length of an answer, at most.
    """

    model: VideoModel
    prepare: Callable[[], PreparedQuestion]
    max_new_tokens: int

    def begin(self, results: Results, waiting: Sequence[Point]) -> Callable[[Point], Numbers]:
        """Encode the video and ask the plain model, after a warm-up: first calls pay for kernels and buffers.

        Raises:
            InvalidValueError: a layer lies beyond the model's depth.
        """
        from tokenprune.plugins import find_adapter

        adapted = find_adapter(self.model.module)
        for point in waiting:
            pipeline_of(point).stages(adapted.depth, adapted.readable)
        encoded = self.model.encoded(self.prepare())
        self.model.answer(encoded, pipeline_of(waiting[0]), 1)
        if "plain" not in results.data:
            self.model.answer(encoded, None, 1)
            plain = self.model.answer(encoded, None, self.max_new_tokens)
            results.data["plain"] = {**_numbers(plain), "frames": encoded.frames, "sampled_fps": encoded.sampled_fps}
            results.save()
        tokens = cast(list[int], results.data["plain"]["token_ids"])
        return partial(self._measure, encoded, tokens)

    def _measure(self, encoded: PreparedQuestion, plain: list[int], point: Point) -> Numbers:
        pruned = self.model.answer(encoded, pipeline_of(point), self.max_new_tokens)
        report = {} if pruned.report is None else pruned.report.to_dict()
        return {
            **_numbers(pruned),
            "same_answer": list(pruned.token_ids) == plain,
            "visual_tokens": report["visual_tokens"][0],
            "visual_after": [stage["visual_after"][0] for stage in report["stages"]],
            "visual_retained": report["visual_retained"][0],
            "layer_averaged_retained": report["layer_averaged_retained"][0],
            "kv_bytes": report["kv_bytes"],
            "kv_bytes_unpruned": report["kv_bytes_unpruned"],
        }


@dataclass(frozen=True)
class WorldQuestions:
    """The world benchmark's held-out questions; each point is a run of its own, so that it is safe when it is done."""

    benchmark: Benchmark
    request: BenchmarkRequest

    def begin(self, results: Results, waiting: Sequence[Point]) -> Callable[[Point], Numbers]:
        """Nothing comes first: the benchmark loads its model itself."""
        return partial(self._measure, results)

    def _measure(self, results: Results, point: Point) -> Numbers:
        request = replace(self.request, pipelines={POINT: pipeline_of(point)}, matched=False)
        result = self.benchmark.run(request, lambda done, total: None)
        self._same_setting(results, result)
        rows = {row.name: row for row in result.rows}
        results.data.setdefault("plain", {"accuracy": rows["plain"].accuracy.to_dict()})
        row = rows[POINT]
        return {
            "accuracy": row.accuracy.to_dict(),
            "agreement": row.agreement.to_dict(),
            "visual_retained": row.retained,
            "layer_averaged_retained": row.budget,
            "seconds": row.seconds,
        }

    def _same_setting(self, results: Results, result: BenchmarkResult) -> None:
        for name, value in result.setting.items():
            if not name.endswith("seconds"):
                results.require(name, value)


def _numbers(answer: Answer) -> dict[str, Any]:
    return {
        "answer": answer.text,
        "token_ids": list(answer.token_ids),
        "seconds": {"prefill": answer.prefill_seconds, "decode": answer.decode_seconds},
        "peak_memory_bytes": answer.peak_memory_bytes,
    }
