# SPDX-License-Identifier: Apache-2.0
"""The typer application: every command is one file, registered here."""

from __future__ import annotations

from typing import Annotated

import typer

from tokenprune.cli._command import command
from tokenprune.cli._one_line import OneLineErrors
from tokenprune.cli.agree import agree
from tokenprune.cli.bench import bench
from tokenprune.cli.bench_operators import bench_operators
from tokenprune.cli.egoschema import egoschema
from tokenprune.cli.eval import evaluate, world
from tokenprune.cli.methods import methods
from tokenprune.cli.plugins import plugins
from tokenprune.cli.run import run
from tokenprune.cli.show import show
from tokenprune.cli.sweep import sweep
from tokenprune.distribution import DISTRIBUTION, installed_version

# No rich boxes: messages are for scripts and logs as much as for people.
app = typer.Typer(
    name="tokenprune",
    cls=OneLineErrors,
    help="Remove redundant visual tokens from video language models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{DISTRIBUTION} {installed_version()}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Remove redundant visual tokens from video language models."""


for body in (run, show, sweep, bench, bench_operators, methods, plugins):
    app.command()(command(body))
for benchmark in (world, egoschema, agree):
    evaluate.command()(command(benchmark))
app.add_typer(evaluate)
