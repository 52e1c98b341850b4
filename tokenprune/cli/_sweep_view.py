# SPDX-License-Identifier: Apache-2.0
"""A sweep's results as a sorted table and as a picture of the trade-off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenprune.cli._picture import save_picture

if TYPE_CHECKING:
    from rich.table import Table

Entry = Mapping[str, Any]
"""``point`` (parameter -> value) and the numbers measured there."""


def best_first(entries: Sequence[Entry]) -> list[Entry]:
    """The most accurate first, or those with the plain model's answer; among equals the smallest budget first."""

    def rank(entry: Entry) -> tuple[float, float, list[tuple[float, str]]]:
        right = entry["accuracy"]["value"] if "accuracy" in entry else float(entry["same_answer"])
        return -right, entry["layer_averaged_retained"], [_in_order(value) for value in entry["point"].values()]

    return sorted(entries, key=rank)


def sweep_table(entries: Sequence[Entry]) -> Table:
    """The entries as they come, one a line."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.MARKDOWN)
    for name in (*_parameters(entries), "kept", "seen"):
        table.add_column(name, justify="right", no_wrap=True)
    of_world = "accuracy" in entries[0]
    for name in ("accuracy", "agrees with plain") if of_world else ("prefill", "same answer", "answer"):
        table.add_column(name, justify="left" if name == "answer" else "right", overflow="fold")
    for entry in entries:
        values = [str(entry["point"].get(name, "")) for name in _parameters(entries)]
        shares = [f"{entry['visual_retained']:.1%}", f"{entry['layer_averaged_retained']:.1%}"]
        table.add_row(*values, *shares, *(_of_world(entry) if of_world else _of_question(entry)))
    return table


def draw_sweep(data: Mapping[str, Any], path: Path) -> None:
    """Accuracy, or prefill time, over the budget; one colour a method or ``tau``. The file appears whole or not at all.

    Args:
        data: of a results file with at least one entry.
        path: ending in ``.png``, ``.svg`` or ``.pdf``.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    entries: list[Entry] = data["entries"]
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for series in sorted({_series(entry) for entry in entries}):
        alike = [entry for entry in entries if _series(entry) == series]
        (_draw_accuracy if "accuracy" in entries[0] else _draw_prefill)(axes, series, alike)
    axes.set_xlabel("visual tokens seen, mean over layers")
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1.0))
    if "accuracy" in entries[0]:
        axes.axhline(data["plain"]["accuracy"]["value"], color="grey", linestyle="--", label="plain model")
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1.0))
        axes.set_ylabel("right answers, with 95 % intervals")
    else:
        axes.axhline(1000 * data["plain"]["seconds"]["prefill"], color="grey", linestyle="--", label="plain model")
        axes.set_ylabel("prefill, ms (filled: the plain model's answer)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    save_picture(figure, path, "sweep")


def _draw_accuracy(axes: Any, label: str, entries: Sequence[Entry]) -> None:
    shares = [entry["accuracy"] for entry in entries]
    values = [share["value"] for share in shares]
    spread = [[s["value"] - s["low"] for s in shares], [s["high"] - s["value"] for s in shares]]
    axes.errorbar(_budgets(entries), values, yerr=spread, fmt="o", capsize=2, ms=4, label=label)


def _draw_prefill(axes: Any, label: str, entries: Sequence[Entry]) -> None:
    times = [1000 * entry["seconds"]["prefill"] for entry in entries]
    (marks,) = axes.plot(_budgets(entries), times, "o", fillstyle="none", label=label)
    same = [entry for entry in entries if entry["same_answer"]]
    axes.plot(_budgets(same), [1000 * entry["seconds"]["prefill"] for entry in same], "o", color=marks.get_color())


def _series(entry: Entry) -> str:
    """What has one colour."""
    point = entry["point"]
    return point["method"] if "method" in point else f"tau {point['tau']}"


def _in_order(value: Any) -> tuple[float, str]:
    """Numbers by their size, all else by its name; points of several methods have values of several kinds."""
    return (float(value), "") if isinstance(value, (int, float)) else (0.0, str(value))


def _budgets(entries: Sequence[Entry]) -> list[float]:
    return [entry["layer_averaged_retained"] for entry in entries]


def _parameters(entries: Sequence[Entry]) -> list[str]:
    """Of all entries: results may hold points of several grids."""
    return list(dict.fromkeys(name for entry in entries for name in entry["point"]))


def _of_world(entry: Entry) -> list[str]:
    share = entry["accuracy"]
    interval = f"[{100 * share['low']:.1f}, {100 * share['high']:.1f}]"
    return [f"{share['value']:.1%} {interval}", f"{entry['agreement']['value']:.1%}"]


def _of_question(entry: Entry) -> list[str]:
    prefill = f"{1000 * entry['seconds']['prefill']:.1f} ms"
    return [prefill, "yes" if entry["same_answer"] else "no", _in_a_cell(entry["answer"])]


def _in_a_cell(text: str) -> str:
    """On one line, shortened, with nothing in it that a terminal or a Markdown table would take for its own."""
    line = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in " ".join(text.split()))
    return (line if len(line) <= 60 else f"{line[:57]}...").replace("|", "\\|")
