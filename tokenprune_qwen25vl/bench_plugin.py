# SPDX-License-Identifier: Apache-2.0
"""How the command line runs and measures Qwen2.5-VL; importing this module imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tokenprune.hookspecs import hookimpl
from tokenprune_qwen25vl.plugin import tokenprune_requirements as tokenprune_requirements

if TYPE_CHECKING:
    from tokenprune.benchmark import Benchmark
    from tokenprune.runner import VideoRunner
    from tokenprune.speed.request import SpeedBench


@hookimpl
def tokenprune_runner() -> VideoRunner:
    from tokenprune_qwen25vl.runner import QwenRunner

    return QwenRunner()


@hookimpl
def tokenprune_benchmarks() -> Mapping[str, Benchmark]:
    from tokenprune_qwen25vl.benchmark import WorldBenchmark

    return {"world": WorldBenchmark()}


@hookimpl
def tokenprune_speed() -> SpeedBench:
    from tokenprune_qwen25vl.speed.suite import QwenSpeed

    return QwenSpeed()
