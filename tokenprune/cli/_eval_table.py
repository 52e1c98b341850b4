# SPDX-License-Identifier: Apache-2.0
"""A benchmark's result as two tables, in Markdown, so that they can be pasted as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from tokenprune.bench.benchmark import BenchmarkResult, Share

WIDER_THAN_ANY = 1000
"""Columns; a table takes what it needs of them."""


def print_tables(result: BenchmarkResult) -> None:
    """Print what was measured to stdout, never folded to the width of a terminal."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, width=WIDER_THAN_ANY)
    for table in (summary_table(result), kinds_table(result)):
        console.print(table)
    setting = result.setting
    console.print(
        f"{setting['questions']} questions about {setting['clips']} clips, {setting['visual_tokens']} visual tokens, "
        f"{setting['decoder_layers']} layers; 95 % intervals (Wilson) in brackets; "
        f"{setting['shared_seconds']:.1f} s shared by all rows"
    )


def summary_table(result: BenchmarkResult) -> Table:
    """Budget, accuracy, agreement and time of each row."""
    table = _table("pipeline", "budget", "accuracy", "agrees with plain", "seconds")
    for row in result.rows:
        table.add_row(
            row.name, f"{row.budget:.2%}", _interval(row.accuracy), f"{row.agreement.value:.1%}", f"{row.seconds:.1f}"
        )
    for name, reason in result.unreachable.items():
        table.add_row(name, "unreachable", reason, "", "")
    return table


def kinds_table(result: BenchmarkResult) -> Table:
    """Accuracy of each row on each kind of question, in per cent."""
    kinds = list(result.rows[0].kinds)
    table = _table("pipeline", *(f"{kind} ({result.rows[0].kinds[kind].total})" for kind in kinds))
    for row in result.rows:
        table.add_row(row.name, *(_short_interval(row.kinds[kind]) for kind in kinds))
    return table


def _table(first: str, *others: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.MARKDOWN)
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _interval(share: Share) -> str:
    low, high = share.interval
    return f"{share.value:.1%} [{100 * low:.1f}, {100 * high:.1f}]"


def _short_interval(share: Share) -> str:
    low, high = share.interval
    return f"{100 * share.value:.0f} [{100 * low:.0f}, {100 * high:.0f}]"
