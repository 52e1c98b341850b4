# SPDX-License-Identifier: Apache-2.0
"""The small world as a benchmark: held-out questions, asked of one model under many pipelines.

Nothing heavy is imported before a benchmark is run.
"""

from __future__ import annotations

from tokenprune.bench.world_benchmark.run import WorldBenchmark

__all__ = ["WorldBenchmark"]
