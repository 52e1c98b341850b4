# SPDX-License-Identifier: Apache-2.0
"""A benchmark's result as two tables, in Markdown, so that they can be pasted as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenprune.cli._tables import markdown_table, print_wide

if TYPE_CHECKING:
    from rich.table import Table

    from tokenprune.bench.benchmark import BenchmarkResult, Share


def print_tables(result: BenchmarkResult) -> None:
    """Print what was measured to stdout."""
    setting = result.setting
    print_wide(
        [
            summary_table(result),
            kinds_table(result),
            f"{setting['questions']} questions about {setting['clips']} clips, {setting['visual_tokens']} visual "
            f"tokens, {setting['decoder_layers']} layers; 95 % intervals (Wilson) in brackets; "
            f"{setting['shared_seconds']:.1f} s shared by all rows",
        ]
    )


def summary_table(result: BenchmarkResult) -> Table:
    """Budget, accuracy, agreement and time of each row."""
    table = markdown_table("pipeline", "budget", "accuracy", "agrees with plain", "seconds")
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
    table = markdown_table("pipeline", *(f"{kind} ({result.rows[0].kinds[kind].total})" for kind in kinds))
    for row in result.rows:
        table.add_row(row.name, *(_short_interval(row.kinds[kind]) for kind in kinds))
    return table


def _interval(share: Share) -> str:
    low, high = share.interval
    return f"{share.value:.1%} [{100 * low:.1f}, {100 * high:.1f}]"


def _short_interval(share: Share) -> str:
    low, high = share.interval
    return f"{100 * share.value:.0f} [{100 * low:.0f}, {100 * high:.0f}]"
