# SPDX-License-Identifier: Apache-2.0
"""Accuracy over budget as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenprune.cli._picture import save_picture

if TYPE_CHECKING:
    from tokenprune.bench.benchmark import BenchmarkResult, Row


def draw(result: BenchmarkResult, path: Path) -> None:
    """Draw each series with its 95 % intervals; the file appears whole or not at all.

    Args:
        result: what was measured.
        path: ending in ``.png``, ``.svg`` or ``.pdf``.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for name, rows in _series(result.rows).items():
        _line(axes, name, sorted(rows, key=lambda row: row.budget))
    axes.set_xlabel("visual tokens seen, mean over layers")
    axes.set_ylabel("right answers")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(xmax=1.0))
    axes.set_title(f"{result.benchmark}: {result.setting['questions']} questions")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    save_picture(figure, path, result.benchmark)


def _series(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.series, []).append(row)
    return found


def _line(axes: Any, name: str, rows: list[Row]) -> None:
    values = [row.accuracy.value for row in rows]
    below = [row.accuracy.value - row.accuracy.interval[0] for row in rows]
    above = [row.accuracy.interval[1] - row.accuracy.value for row in rows]
    style = "o-" if len(rows) > 1 else "D"
    axes.errorbar([row.budget for row in rows], values, yerr=[below, above], fmt=style, capsize=2, ms=4, label=name)
