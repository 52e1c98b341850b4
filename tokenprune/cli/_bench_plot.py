# SPDX-License-Identifier: Apache-2.0
"""Where the time up to the first token goes, as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenprune.cli._bench_cells import VISION
from tokenprune.cli._bench_table import FIRST_TOKEN, PREFILL, in_order
from tokenprune.cli._picture import save_picture
from tokenprune.cli._units import milliseconds

if TYPE_CHECKING:
    from tokenprune.bench.speed.result import SpeedResult, SpeedRow

_COLOURS = {
    "vision encoder": "#9aa5b1",
    "operators": "#d1495b",
    "rest of the LLM prefill": "#2e6f95",
    "rest, up to the first token": "#e9c46a",
}


def draw(result: SpeedResult, path: Path) -> None:
    """Draw a bar for each row, made of what its time went into; the file appears whole or not at all.

    Args:
        result: what was measured.
        path: ending in ``.png``, ``.svg`` or ``.pdf``.
    """
    from matplotlib.figure import Figure

    rows = in_order(result.rows)
    parts = [parts_of(row, result.vision[VISION].median) for row in rows]
    figure = Figure(figsize=(9, 1.6 + 0.4 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for place, shown in enumerate(parts):
        _bar(axes, place, shown)
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows])
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlabel("milliseconds (medians)")
    axes.set_title(f"Time to the first token\n{_subject(result)}", fontsize="medium")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    figure.legend(handles=_legend(), fontsize="small", ncols=len(_COLOURS), loc="outside lower center")
    save_picture(figure, path, "bench")


def parts_of(row: SpeedRow, vision: float) -> dict[str, float]:
    """Part -> seconds, medians; none is negative, and a row without an answer ends with its LLM prefill."""
    prefill = row.figures[PREFILL].median
    operators = min(prefill, sum(operator.seconds.median for operator in row.operators))
    first = row.figures[FIRST_TOKEN].median if FIRST_TOKEN in row.figures else vision + prefill
    seconds = (vision, operators, prefill - operators, max(0.0, first - vision - prefill))
    return dict(zip(_COLOURS, seconds))


def _bar(axes: Any, place: int, parts: Mapping[str, float]) -> None:
    left = 0.0
    for name, seconds in parts.items():
        axes.barh(place, 1000 * seconds, left=left, height=0.7, color=_COLOURS[name])
        left += 1000 * seconds
    axes.annotate(milliseconds(left / 1000), (left, place), (4, 0), textcoords="offset points", va="center", fontsize=8)


def _legend() -> list[Any]:
    from matplotlib.patches import Patch

    return [Patch(color=colour, label=name) for name, colour in _COLOURS.items()]


def _label(row: SpeedRow) -> str:
    return row.name if FIRST_TOKEN in row.figures else f"{row.name}\n(ends with the LLM prefill)"


def _subject(result: SpeedResult) -> str:
    """What was measured on what, as far as the adapter says it."""
    setting, machine = result.setting, result.machine
    tokens = setting.get("prompt_tokens")
    known = (setting.get("model"), setting.get("dtype"), machine.get("device_name"), tokens and f"{tokens} tokens")
    return ", ".join(str(fact) for fact in known if fact)
