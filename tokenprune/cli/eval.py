# SPDX-License-Identifier: Apache-2.0
"""``tokenprune eval``: how many answers stay right, plain and pruned; one command a benchmark."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokenprune.cli._common import DebugFlag, JsonFlag, guarded, print_json
from tokenprune.cli._eval_methods import (
    AgainstOption,
    BudgetsOption,
    MassOption,
    MethodsOption,
    masses,
    method_grid,
)
from tokenprune.cli._machine import AttnOption, DeviceOption, DtypeOption, Machine
from tokenprune.cli._outputs import check_outputs, record
from tokenprune.cli._pipeline import DEFAULT
from tokenprune.cli._preset_names import PRESET_HELP, complete_preset
from tokenprune.cli._progress import progress_bar
from tokenprune.cli._usage import UsageError
from tokenprune.errors import InvalidValueError, NoAdapterError
from tokenprune.messages import shown

if TYPE_CHECKING:
    from tokenprune.bench.benchmark import Benchmark, BenchmarkRequest, BenchmarkResult
    from tokenprune.bench.results import Results
    from tokenprune.pipeline import Pipeline

HOOK = "tokenprune_benchmarks"
KIND = "tokenprune.world.partial"
SHIPPED_NOTE = "tokenprune: no --model given, so the small model that ships with tokenprune is measured"

evaluate = typer.Typer(name="eval", help="Measure how many answers stay right.", no_args_is_help=True)


@evaluate.callback()
def benchmarks() -> None:
    """Measure how many answers stay right when visual tokens are pruned."""


@evaluate.command()
def world(
    presets: Annotated[
        list[str] | None,
        typer.Option(
            "--preset",
            help=f"{PRESET_HELP}; may be repeated.",
            metavar="NAME",
            show_default=False,
            autocompletion=complete_preset,
        ),
    ] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option("--pipeline", help="A pipeline file (JSON); may be repeated.", metavar="FILE", show_default=False),
    ] = None,
    methods: MethodsOption = None,
    budgets: BudgetsOption = None,
    mass: MassOption = None,
    against: AgainstOption = None,
    table: Annotated[bool, typer.Option("--table", help="Every preset, and what --sweep measures.")] = False,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Both stages, alone and together, at budgets from 50 to 10 %.")
    ] = False,
    ablation: Annotated[
        bool, typer.Option("--ablation", help="Scores, selection, positions, distances and layers, one at a time.")
    ] = False,
    blind: Annotated[bool, typer.Option("--blind", help="Also ask the plain model with nothing to see.")] = False,
    questions: Annotated[int, typer.Option(help="Held-out questions, equally many of each kind.", min=1)] = 500,
    seed: Annotated[
        int, typer.Option(help="Which set of held-out clips; choose defaults on one, report another.", min=0)
    ] = 0,
    model: Annotated[
        str | None,
        typer.Option(help="A checkpoint directory or id; the small shipped model where none is given.", metavar="NAME"),
    ] = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    attn: AttnOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Also write the result to this file, as JSON; what is done is kept beside it until then.",
            metavar="FILE",
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Also draw accuracy over budget (needs the extra [plot]).", metavar="FILE")
    ] = None,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Ask held-out questions about clips of a small made-up world, plain and pruned.

    The plain model, and random and uniform selection at the budget each pipeline spends, are always among the rows.
    Two things are counted: "word", the answer begins with the right word (what was seen), and "strict", it also ends
    there (a model whose attention was thinned out may go on).
    With --out, after an interruption the same command goes on where it was.
    """
    with guarded(debug, as_json):
        machine = Machine.check(device, dtype, attn, as_json)
        chosen = [name for name, on in (("table", table), ("sweep", sweep), ("ablation", ablation)) if on]
        _check_usage(chosen, bool(presets or files or methods), out, plot, as_json)
        grid = method_grid(methods, budgets, mass, as_json)
        nothing = not (chosen or files or methods)
        pipelines = load_pipelines(presets or ([DEFAULT] if nothing else []), files or [], as_json)
        from tokenprune.bench.benchmark import BenchmarkRequest

        suite = chosen[0] if chosen else None
        request = BenchmarkRequest(
            pipelines=pipelines,
            suite=suite,
            questions=questions,
            seed=seed,
            blind=blind,
            model=model,
            device=machine.device,
            dtype=machine.dtype,
            attn=machine.attn,
            methods=grid,
            masses=masses(mass, as_json),
            against=tuple(against or ["plain"]),
        )
        benchmark = find_benchmark("world")
        if model is None:
            print(SHIPPED_NOTE, file=sys.stderr, flush=True)
        journal = None if out is None else _journal(out, request)
        with progress_bar("clips") as progress:
            result = benchmark.run(request, progress, journal)
        _show(result, out, plot, as_json)
        if journal is not None:
            journal.path.unlink(missing_ok=True)


def _journal(out: Path, request: BenchmarkRequest) -> Results:
    """The clips that an interrupted run is done with, in a file beside the result, or none yet.

    Raises:
        ResultFileError: that run was of something else.
    """
    from tokenprune.bench.results import Results, versions

    grid = request.methods
    inputs = {
        "pipelines": {name: dict(pipeline.to_dict()) for name, pipeline in request.pipelines.items()},
        "suite": request.suite,
        "questions": request.questions,
        "seed": request.seed,
        "blind": request.blind,
        "methods": None if grid is None else grid.to_dict(),
        "masses": list(request.masses),
        "model": "shipped" if request.model is None else request.model,
        **versions(),
    }
    return Results.open(out.with_name(f"{out.stem}.partial.json"), KIND, inputs)


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


def _check_usage(chosen: list[str], named: bool, out: Path | None, plot: Path | None, as_json: bool) -> None:
    """Whatever would fail only after everything has been measured is refused first."""
    if len(chosen) + named > 1:
        named_ones = "--preset with --pipeline and --methods"
        raise UsageError(f"choose one of --table, --sweep, --ablation, and {named_ones}", as_json)
    if plot is not None and "ablation" in chosen:
        raise UsageError("--plot draws accuracy over budget, but --ablation compares at equal budgets", as_json)
    check_outputs(out, plot, as_json)


def load_pipelines(presets: list[str], files: list[Path], as_json: bool) -> dict[str, Pipeline]:
    """Presets by their names, files by their paths.

    Raises:
        UsageError: an unknown preset.
        PipelineFileError: a file that cannot be read as a pipeline.
    """
    from tokenprune.named import preset
    from tokenprune.pipeline import Pipeline

    try:
        named = {name: preset(name) for name in presets}
    except InvalidValueError as error:
        raise UsageError(str(error), as_json) from error
    return named | {str(file): Pipeline.load(file) for file in files}


def _show(result: BenchmarkResult, out: Path | None, plot: Path | None, as_json: bool) -> None:
    data = record({"model": result.setting["model"], **result.to_dict()}, out)
    if plot is not None:
        from tokenprune.cli._eval_plot import draw

        draw(result, plot)
    if as_json:
        print_json(data)
        return
    from tokenprune.cli._eval_table import print_tables

    print_tables(result)
