# SPDX-License-Identifier: Apache-2.0
"""``tokenprune sweep``: every combination of parameters, on one video or on the questions of the world benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokenprune.cli._output import UsageError
from tokenprune.cli._outputs import Outputs, ResultsOption, check_place
from tokenprune.cli._progress import progress_bar
from tokenprune.cli._runner import SHIPPED_NOTE, say_note
from tokenprune.cli._sweep_grid import Grid
from tokenprune.cli._sweep_options import GridOptions
from tokenprune.cli._sweep_start import Asked
from tokenprune.cli._tables import print_wide

if TYPE_CHECKING:
    from tokenprune.bench.results import Results
    from tokenprune.cli._sweep_measure import Measure

RESULTS = Path("stage1_sweep_results.json")


@dataclass(frozen=True)
class Files:
    """Where the results and their picture go.

    Raises:
        UsageError: a file that cannot be written, or of another kind.
    """

    out: ResultsOption = RESULTS
    plot: Annotated[
        Path | None,
        typer.Option(help="The picture; beside the results where matplotlib is installed.", metavar="FILE"),
    ] = None

    def __post_init__(self) -> None:
        if self.out.suffix != ".json":
            raise UsageError(f"--out must end in .json, got {self.out}")
        check_place("--out", self.out)
        Outputs(plot=self.plot)


def sweep(asked: Asked, values: GridOptions, files: Files) -> Swept:
    """Try every combination of parameters and show what each costs and keeps.

    Each result is written when it is measured: after an interruption the same command goes on where it was.
    """
    grid = values.parse()
    if asked.model is None:
        say_note(SHIPPED_NOTE)
    results, measure = asked.start(files.out)
    _run(results, measure, grid)
    return Swept(results, grid, _draw(results, files.plot))


@dataclass(frozen=True)
class Swept:
    """All results of the file, the grid that was asked for, and the picture."""

    results: Results
    grid: Grid
    picture: Path | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return self.results.data

    def render(self) -> None:
        """Print the table of the grid's points, the best first."""
        from tokenprune.cli._sweep_view import best_first, sweep_table

        wanted = list(self.grid.points())
        shown = [entry for entry in self.results.entries if entry["point"] in wanted]
        print_wide([sweep_table(best_first(shown))])
        print(f"results: {self.results.path}" + ("" if self.picture is None else f", picture: {self.picture}"))


def _run(results: Results, measure: Measure, grid: Grid) -> None:
    done = [entry["point"] for entry in results.entries]
    points = list(grid.points())
    waiting = [point for point in points if point not in done]
    if not waiting:
        return
    with progress_bar("points") as progress:
        measured = measure.begin(results, waiting)
        for left, point in zip(range(len(waiting), 0, -1), waiting):
            progress(len(points) - left, len(points))
            results.add({"point": point, **measured(point)})


def _draw(results: Results, plot: Path | None) -> Path | None:
    from tokenprune.cli._sweep_view import draw_sweep

    if find_spec("matplotlib") is not None:
        plot = plot or results.path.with_suffix(".png")
        draw_sweep(results.data, plot)
    return plot
