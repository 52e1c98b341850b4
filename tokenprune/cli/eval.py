# SPDX-License-Identifier: Apache-2.0
"""``tokenprune eval``: how many answers stay right, plain and pruned; one command a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokenprune.cli._benchmarks import find_benchmark, open_journal
from tokenprune.cli._eval_methods import AgainstOption, Methods
from tokenprune.cli._machine import Machine
from tokenprune.cli._output import UsageError
from tokenprune.cli._outputs import Outputs
from tokenprune.cli._pipeline import DEFAULT
from tokenprune.cli._pipelines import PipelineChoices
from tokenprune.cli._progress import progress_bar
from tokenprune.cli._runner import ModelOption, say_note

if TYPE_CHECKING:
    from tokenprune.bench.benchmark import BenchmarkResult

SHIPPED_NOTE = "tokenprune: no --model given, so the small model that ships with tokenprune is measured"

evaluate = typer.Typer(name="eval", help="Measure how many answers stay right.", no_args_is_help=True)


@evaluate.callback()
def benchmarks() -> None:
    """Measure how many answers stay right when visual tokens are pruned."""


@dataclass(frozen=True)
class Suite:
    """A set of pipelines with a name, chosen instead of pipelines."""

    table: Annotated[bool, typer.Option("--table", help="Every preset, and what --sweep measures.")] = False
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Both stages, alone and together, at budgets from 50 to 10 %.")
    ] = False
    ablation: Annotated[
        bool, typer.Option("--ablation", help="Scores, selection, positions, distances and layers, one at a time.")
    ] = False

    def name(self, named: bool, outputs: Outputs) -> str | None:
        """The suite's, or None where pipelines or methods are chosen (``named``).

        Raises:
            UsageError: several are chosen, or a picture of what cannot be drawn.
        """
        chosen = [name for name in ("table", "sweep", "ablation") if getattr(self, name)]
        if len(chosen) + named > 1:
            raise UsageError("choose one of --table, --sweep, --ablation, and --preset with --pipeline and --methods")
        if outputs.plot is not None and self.ablation:
            raise UsageError("--plot draws accuracy over budget, but --ablation compares at equal budgets")
        return chosen[0] if chosen else None


def world(
    choices: PipelineChoices,
    methods: Methods,
    suite: Suite,
    machine: Machine,
    outputs: Outputs,
    *,
    blind: Annotated[bool, typer.Option("--blind", help="Also ask the plain model with nothing to see.")] = False,
    questions: Annotated[int, typer.Option(help="Held-out questions, equally many of each kind.", min=1)] = 500,
    seed: Annotated[
        int, typer.Option(help="Which set of held-out clips; choose defaults on one, report another.", min=0)
    ] = 0,
    against: AgainstOption = None,
    model: ModelOption = None,
) -> Evaluated:
    """Ask held-out questions about clips of a small made-up world, plain and pruned.

    The plain model, and random and uniform selection at the budget each pipeline spends, are always among the rows.
    Two things are counted: "word", the answer begins with the right word (what was seen), and "strict", it also ends
    there (a model whose attention was thinned out may go on).

    With --out, what is done is kept beside that file: after an interruption the same command goes on where it was.
    """
    from tokenprune.bench.world_benchmark.methods import ASKED

    grid = methods.grid(ASKED)
    name = suite.name(choices.named or grid is not None, outputs)
    pipelines = choices.resolve(default=() if name or grid else (DEFAULT,))
    from tokenprune.bench.benchmark import BenchmarkRequest

    request = BenchmarkRequest(
        pipelines,
        name,
        questions,
        seed,
        blind,
        model,
        machine.device,
        machine.dtype,
        machine.attn,
        methods=grid,
        masses=methods.masses,
        against=tuple(against or ["plain"]),
    )
    benchmark = find_benchmark("world")
    if model is None:
        say_note(SHIPPED_NOTE)
    journal = None if outputs.out is None else open_journal(outputs.out, request)
    with progress_bar("clips") as progress:
        result = benchmark.run(request, progress, journal)
    evaluated = Evaluated.record(result, outputs)
    if journal is not None:
        journal.path.unlink(missing_ok=True)
    return evaluated


@dataclass(frozen=True)
class Evaluated:
    """What a benchmark measured, and the record of it."""

    result: BenchmarkResult
    data: Mapping[str, Any]

    @classmethod
    def record(cls, result: BenchmarkResult, outputs: Outputs) -> Evaluated:
        """Write the files that were asked for."""
        from tokenprune.cli._eval_plot import draw

        data = {"model": result.setting["model"], **result.to_dict()}
        return cls(result, outputs.record(data, lambda path: draw(result, path)))

    def to_dict(self) -> Mapping[str, Any]:
        """JSON-ready."""
        return self.data

    def render(self) -> None:
        """Print the tables."""
        from tokenprune.cli._eval_table import print_tables

        print_tables(self.result)
