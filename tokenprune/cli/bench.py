# SPDX-License-Identifier: Apache-2.0
"""``tokenprune bench``: what pruning costs and saves, in seconds, memory and arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokenprune.cli._bench_options import Workload
from tokenprune.cli._machine import Machine
from tokenprune.cli._measuring import Rounds, find_speed
from tokenprune.cli._output import UsageError, wrong_usage
from tokenprune.cli._outputs import Outputs
from tokenprune.cli._pipelines import PipelineChoices
from tokenprune.cli._progress import progress_bar
from tokenprune.cli._runner import say_note

if TYPE_CHECKING:
    from tokenprune.bench.speed.result import SpeedResult

DEFAULTS = ("default", "baseline")
SHIPPED_NOTE = (
    "tokenprune: neither --shape nor --model given, so the small model that ships with tokenprune is measured; "
    "it is far too small for its times to say anything about large ones"
)


def bench(workload: Workload, choices: PipelineChoices, rounds: Rounds, machine: Machine, outputs: Outputs) -> Measured:
    """Measure speed and memory, plain and pruned, in one run.

    Beside each pipeline (default and baseline where none is chosen) stand the plain model, the lower bound (the plain
    layers at the pipeline's lengths, no operator) and the eager baseline (eager attention whose weights are put out,
    then masking).
    """
    _check_names(choices)
    request = workload.request(choices.resolve(DEFAULTS), rounds, machine)
    with wrong_usage():
        measuring = find_speed(workload.shape, workload.model)
    if workload.shape is None and workload.model is None:
        say_note(SHIPPED_NOTE)
    with progress_bar("runs") as progress:
        result = measuring.measure(request, progress)
    return Measured.record(result, workload.subject, outputs)


@dataclass(frozen=True)
class Measured:
    """What was measured, and the record of it."""

    result: SpeedResult
    data: Mapping[str, Any]

    @classmethod
    def record(cls, result: SpeedResult, model: str, outputs: Outputs) -> Measured:
        """Write the files that were asked for."""
        from tokenprune.cli._bench_plot import draw

        return cls(result, outputs.record({"model": model, **result.to_dict()}, lambda path: draw(result, path)))

    def to_dict(self) -> Mapping[str, Any]:
        """JSON-ready."""
        return self.data

    def render(self) -> None:
        """Print the tables."""
        from tokenprune.cli._bench_table import print_tables

        print_tables(self.result)


def _check_names(choices: PipelineChoices) -> None:
    """A file that would be taken for another row is refused."""
    for file in choices.files or []:
        name = str(file)
        if name == "plain" or name in (choices.presets or []) or name.startswith(("lower bound: ", "eager baseline: ")):
            raise UsageError(f"--pipeline must not be named like another row, got {name}")
