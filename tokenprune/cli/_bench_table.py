# SPDX-License-Identifier: Apache-2.0
"""A speed measurement as two tables, in Markdown, so that they can be pasted as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tokenprune.cli._bench_cells import facts, kv, quantity, rate, speedup, spread, times, where
from tokenprune.cli._tables import markdown_table, print_wide
from tokenprune.cli._units import size, work

if TYPE_CHECKING:
    from rich.table import Table

    from tokenprune.bench.speed.result import SpeedResult, SpeedRow

PREFILL = "llm_prefill_seconds"
FIRST_TOKEN = "time_to_first_token_seconds"
DECODE = "decode_tokens_per_second"
COLUMNS = (
    "tokens",
    "LLM prefill",
    "/ lower bound",
    "/ plain",
    "first token",
    "speed-up (ceiling)",
    "decode tokens/s",
    "/ plain",
    "answer speed-up (ceiling)",
    "peak memory",
    "/ plain",
    "KV cache",
    "prefill FLOP",
)
LEGEND = (
    "Medians [smallest, largest] of the counted runs. tokens: what the first and the last decoder layer computed, all "
    "rows of the batch together. first token: vision encoder and everything up to it. Ceiling: the speed-up of an LLM "
    "prefill that takes no time.",
    "lower bound: the plain layers at the pipeline's lengths, without any operator. eager baseline: eager attention "
    "whose weights are put out, then masking. FLOP: by formula, of the decoder layers. KV cache: measured; a formula's "
    "value is marked.",
)


def print_tables(result: SpeedResult) -> None:
    """Print what was measured to stdout."""
    print_wide(
        [
            facts(result.machine),
            facts(result.setting),
            "vision encoder: " + ", ".join(quantity(*each) for each in result.vision.items()),
            rows_table(result),
            *([operators_table(result)] if any(row.operators for row in result.rows) else []),
            *(f"unreachable: {name}: {reason}" for name, reason in result.unreachable.items()),
            *LEGEND,
        ]
    )


def rows_table(result: SpeedResult) -> Table:
    """Times, memory and work of each row."""
    table = markdown_table("", *COLUMNS)
    for row in in_order(result.rows):
        table.add_row(
            row.name,
            f"{sum(row.layer_tokens[0])} to {sum(row.layer_tokens[-1])}",
            spread(row.figures.get(PREFILL)),
            times(row.ratios.get("llm_prefill / lower bound")),
            times(row.ratios.get("llm_prefill / plain")),
            spread(row.figures.get(FIRST_TOKEN)),
            speedup(row.speedups.get("time_to_first_token")),
            rate(row.figures.get(DECODE)),
            times(row.ratios.get("decode tokens/s / plain")),
            speedup(row.speedups.get("answer")),
            "" if row.peak_memory_bytes is None else size(row.peak_memory_bytes),
            times(row.ratios.get("peak_memory / plain")),
            kv(row),
            work(row.prefill_flops),
        )
    return table


def operators_table(result: SpeedResult) -> Table:
    """What each operator took and left, beside the plain model's LLM prefill."""
    table = markdown_table("pipeline", "operator", "where", "visual tokens", "time", "of the plain LLM prefill")
    plain = next((row for row in result.rows if row.role == "plain"), None)
    for row in in_order(result.rows):
        for operator in row.operators:
            seconds = operator.seconds.median
            share = "" if plain is None else f"{seconds / plain.figures[PREFILL].median:.2%}"
            before, after = sum(operator.visual_before), sum(operator.visual_after)
            place = where(operator)
            table.add_row(row.name, operator.operator, place, f"{before} to {after}", spread(operator.seconds), share)
    return table


def in_order(rows: Sequence[SpeedRow]) -> list[SpeedRow]:
    """The plain model, then each pipeline with its lower bound and its eager baseline after it."""
    names = [row.name for row in rows if row.role == "pipeline"]

    def place(row: SpeedRow) -> tuple[int, int]:
        subject = row.name.removeprefix(f"{row.role}: ")
        own = ("plain", "pipeline", "lower bound", "eager baseline").index(row.role)
        if row.role == "plain":
            return -1, 0
        return names.index(subject) if subject in names else len(names), own

    return sorted(rows, key=place)
