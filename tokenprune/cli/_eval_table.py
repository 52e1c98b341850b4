# SPDX-License-Identifier: Apache-2.0
"""A benchmark's result as tables, in Markdown, so that they can be pasted as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tokenprune.cli._tables import markdown_table, print_wide

if TYPE_CHECKING:
    from rich.table import Table

    from tokenprune.bench.benchmark import BenchmarkResult, Row, Share
    from tokenprune.bench.paired import Paired

LEGEND = (
    "word: the answer begins with the right word; strict: it is the right word and ends there. Lost to seeing: words "
    "that the plain model gets and the row does not; lost to stopping: right words after which it goes on."
)
PAIRED = (
    "against: questions that only this row gets right / that only the other does, and how likely so uneven a split is "
    "by chance (exact McNemar test, two-sided)"
)


def print_tables(result: BenchmarkResult) -> None:
    """Print what was measured to stdout."""
    grid = [row for row in result.rows if row.nominal is not None and row.notes.get("method")]
    others = [row for row in result.rows if row not in grid]
    tables = [summary_table(others, result), kinds_table(others)]
    if grid:
        tables += [grid_table(grid), budgets_table(grid), *(paired_table(grid, other) for other in _compared(grid))]
    setting = result.setting
    about = (
        f"{setting['questions']} questions (choice seed {setting['seed']}) about {setting['clips']} clips, "
        f"{setting['visual_tokens']} visual tokens, {setting['decoder_layers']} layers; 95 % intervals (Wilson) in "
        f"brackets; {setting['shared_seconds']:.1f} s shared by all rows"
    )
    print_wide([*tables, about, LEGEND, PAIRED])


def summary_table(rows: Sequence[Row], result: BenchmarkResult) -> Table:
    """Budget, what is right in words and strictly, what is lost and how, agreement and time of each row."""
    compared = _compared(rows)
    columns = ["budget", "word", "strict", "lost to seeing", "lost to stopping"]
    columns += [f"against {name} ({count})" for name in compared for count in ("word", "strict")]
    table = markdown_table("pipeline", *columns, "agrees with plain", "seconds")
    plain = result.rows[0].word.value
    for row in rows:
        table.add_row(
            row.name,
            f"{row.budget:.2%}",
            _interval(row.word),
            _interval(row.accuracy),
            f"{100 * (plain - row.word.value):.1f}",
            f"{100 * (row.word.value - row.accuracy.value):.1f}",
            *(_test(row, name, count) for name in compared for count in ("word", "strict")),
            f"{row.agreement.value:.1%}",
            f"{row.seconds:.1f}",
        )
    for name, reason in result.unreachable.items():
        table.add_row(name, "unreachable", reason)
    return table


def kinds_table(rows: Sequence[Row]) -> Table:
    """Right answers of each row on each kind of question, word / strict in per cent."""
    kinds = rows[0].kinds
    table = markdown_table("word / strict", *(f"{kind} ({share.total})" for kind, share in kinds.items()))
    for row in rows:
        table.add_row(row.name, *(f"{_percent(row.kinds_word[kind])} / {_percent(row.kinds[kind])}" for kind in kinds))
    return table


def grid_table(rows: Sequence[Row]) -> Table:
    """Methods by budgets: word / strict, and the interval of strict."""
    table, budgets, series = _grid(rows, "word / strict [95 % of strict]")
    for name, found in series.items():
        table.add_row(name, *(_both(found[budget]) if budget in found else "" for budget in budgets))
    return table


def budgets_table(rows: Sequence[Row]) -> Table:
    """Methods by budgets: what all layers saw, in per cent of all visual tokens, and what the last one did."""
    table, budgets, series = _grid(rows, "budget, averaged over layers (left at the end)")
    for name, found in series.items():
        table.add_row(name, *(_spent(found[budget]) if budget in found else "" for budget in budgets))
    return table


def paired_table(rows: Sequence[Row], other: str) -> Table:
    """Methods by budgets: the tests against another row, word; strict."""
    table, budgets, series = _grid(rows, f"against {other}: word; strict")
    for name, found in series.items():
        if any(other in row.paired for row in found.values()):
            table.add_row(name, *(_tests(found.get(budget), other) for budget in budgets))
    return table


def _grid(rows: Sequence[Row], title: str) -> tuple[Table, list[float], dict[str, dict[float, Row]]]:
    budgets = sorted({row.nominal for row in rows if row.nominal is not None}, reverse=True)
    series: dict[str, dict[float, Row]] = {}
    for row in rows:
        if row.nominal is not None:
            series.setdefault(row.series, {})[row.nominal] = row
    return markdown_table(title, *(f"{100 * budget:g} %" for budget in budgets)), budgets, series


def _compared(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row.paired))


def _test(row: Row, other: str, count: str) -> str:
    if other not in row.paired:
        return ""
    test: Paired = row.paired[other][count]
    return f"{test.wins}/{test.losses} (p {test.p:.2g})"


def _tests(row: Row | None, other: str) -> str:
    return "" if row is None else f"{_test(row, other, 'word')}; {_test(row, other, 'strict')}"


def _interval(share: Share) -> str:
    low, high = share.interval
    return f"{share.value:.1%} [{100 * low:.1f}, {100 * high:.1f}]"


def _spent(row: Row) -> str:
    return f"{100 * row.budget:.1f} ({100 * row.retained:.1f})"


def _both(row: Row) -> str:
    low, high = row.accuracy.interval
    return f"{100 * row.word.value:.1f} / {100 * row.accuracy.value:.1f} [{100 * low:.0f}-{100 * high:.0f}]"


def _percent(share: Share) -> str:
    return f"{100 * share.value:.0f}"
