# SPDX-License-Identifier: Apache-2.0
"""How the command line runs and measures Qwen2.5-VL; importing this module imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tokenprune.hookspecs import hookimpl
from tokenprune_qwen25vl.plugin import tokenprune_requirements as tokenprune_requirements

if TYPE_CHECKING:
    from tokenprune.bench.benchmark import Benchmark
    from tokenprune.bench.runner import VideoRunner
    from tokenprune.bench.speed.request import SpeedBench


@hookimpl
def tokenprune_runner() -> VideoRunner:
    from tokenprune_qwen25vl.runner import QwenRunner

    return QwenRunner()


@hookimpl
def tokenprune_benchmarks() -> Mapping[str, Benchmark]:
    from tokenprune.bench.world_benchmark import WorldBenchmark
    from tokenprune_qwen25vl.family import QWEN25VL

    return {"world": WorldBenchmark(QWEN25VL)}


@hookimpl
def tokenprune_speed() -> SpeedBench:
    from tokenprune.bench.model_speed.suite import ModelSpeed
    from tokenprune_qwen25vl.family import QWEN25VL

    return ModelSpeed(QWEN25VL)
