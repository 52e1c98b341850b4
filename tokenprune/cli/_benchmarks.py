# SPDX-License-Identifier: Apache-2.0
"""Which installed adapter has a benchmark, and the journal of a run of one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tokenprune.errors import NoAdapterError
from tokenprune.messages import shown

if TYPE_CHECKING:
    from tokenprune.bench.benchmark import Benchmark, BenchmarkRequest
    from tokenprune.bench.results import Results

HOOK = "tokenprune_benchmarks"
KIND = "tokenprune.world.partial"


def find_benchmark(name: str) -> Benchmark:
    """The benchmark of this name, of the first plugin that has one.

    Raises:
        NoAdapterError: none has; the message names the plugins that cannot be used.
    """
    from tokenprune.bench.offers import offers

    reasons: list[str] = []
    for _, offered in offers(HOOK, reasons):
        if name in offered:
            return offered[name]
    raise NoAdapterError(f"no adapter has the benchmark {shown(name)}: {'; '.join(reasons) or 'none is installed'}")


def open_journal(out: Path, request: BenchmarkRequest) -> Results:
    """The clips that an interrupted run is done with, in a file beside the result, or none yet.

    Raises:
        ResultFileError: that run was of something else.
    """
    from tokenprune.bench.results import Results, versions

    inputs = {
        "pipelines": {name: dict(pipeline.to_dict()) for name, pipeline in request.pipelines.items()},
        "suite": request.suite,
        "questions": request.questions,
        "seed": request.seed,
        "blind": request.blind,
        "methods": None if request.methods is None else request.methods.to_dict(),
        "masses": list(request.masses),
        "model": "shipped" if request.model is None else request.model,
        **versions(),
    }
    return Results.open(out.with_name(f"{out.stem}.partial.json"), KIND, inputs)
