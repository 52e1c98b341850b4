# SPDX-License-Identifier: Apache-2.0
"""Right words and right answers over budget as a picture: what is seen, and what is also ended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenprune.cli._picture import save_picture

if TYPE_CHECKING:
    from tokenprune.bench.benchmark import BenchmarkResult, Row

COUNTS = {"word": "begins with the right word (seen)", "strict": "is the right word and ends there (seen and stopped)"}
MASS = " + mass"


def draw(result: BenchmarkResult, path: Path) -> None:
    """Draw each series with its 95 % intervals, words and whole answers; the file appears whole or not at all.

    Args:
        result: what was measured.
        path: ending in ``.png``, ``.svg`` or ``.pdf``.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    series = _series(result.rows)
    figure = Figure(figsize=(12, max(5, 0.17 * len(series) + 1)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    colours = _colours(series)
    for axes, (count, title) in zip(panels, COUNTS.items()):
        for name, rows in series.items():
            ordered = sorted(rows, key=lambda row: row.budget)
            _line(axes, name, ordered, count, colours[name.removesuffix(MASS)])
        axes.set_xlabel("visual tokens seen, mean over layers")
        axes.set_title(f"{count}: the answer {title}", fontsize="medium")
        axes.grid(alpha=0.3)
        axes.set_xscale("log", base=2)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(xmax=1.0))
    panels[0].set_ylabel("answers")
    panels[1].legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1.01, 0.5))
    figure.suptitle(f"{result.benchmark}: {result.setting['questions']} questions")
    save_picture(figure, path, result.benchmark)


def _series(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.series, []).append(row)
    return found


def _colours(series: dict[str, list[Row]]) -> dict[str, Any]:
    """One for a method, whether with mass or without."""
    from matplotlib import colormaps

    bases = list(dict.fromkeys(name.removesuffix(MASS) for name in series))
    return {name: colormaps["tab20"](place % 20) for place, name in enumerate(bases)}


def _line(axes: Any, name: str, rows: list[Row], count: str, colour: Any) -> None:
    shares = [row.word if count == "word" else row.accuracy for row in rows]
    below = [share.value - share.interval[0] for share in shares]
    above = [share.interval[1] - share.value for share in shares]
    style = "D" if len(rows) == 1 else "o-" if name.endswith(MASS) else "o--"
    values = [share.value for share in shares]
    budgets = [row.budget for row in rows]
    axes.errorbar(budgets, values, yerr=[below, above], fmt=style, capsize=2, ms=4, lw=1, label=name, color=colour)
