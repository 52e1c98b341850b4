# SPDX-License-Identifier: Apache-2.0
"""A speed measurement as two tables, in Markdown, so that they can be pasted as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tokenprune.cli._units import milliseconds, size, work

if TYPE_CHECKING:
    from rich.table import Table

    from tokenprune.bench.speed.figures import Figure
    from tokenprune.bench.speed.result import OperatorCost, SpeedResult, SpeedRow, Speedup

WIDER_THAN_ANY = 1000
"""Columns; a table takes what it needs of them."""
VISION = "seconds"
PREFILL = "llm_prefill_seconds"
FIRST_TOKEN = "time_to_first_token_seconds"
DECODE = "decode_tokens_per_second"
COLUMNS = (
    "tokens",
    "LLM prefill",
    "/ ideal",
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
    "ideal: the plain layers at the pipeline's lengths, without any operator. usual: eager attention whose weights are "
    "put out, then masking. FLOP: by formula, of the decoder layers. KV cache: measured; a formula's value is marked.",
)


def print_tables(result: SpeedResult) -> None:
    """Print what was measured to stdout, never folded to the width of a terminal."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, width=WIDER_THAN_ANY)
    console.print(_facts(result.machine))
    console.print(_facts(result.setting))
    console.print("vision encoder: " + ", ".join(_quantity(*each) for each in result.vision.items()))
    console.print(rows_table(result))
    if any(row.operators for row in result.rows):
        console.print(operators_table(result))
    for name, reason in result.unreachable.items():
        console.print(f"unreachable: {name}: {reason}")
    for line in LEGEND:
        console.print(line)


def rows_table(result: SpeedResult) -> Table:
    """Times, memory and work of each row."""
    table = _table("", *COLUMNS)
    for row in in_order(result.rows):
        table.add_row(
            row.name,
            f"{sum(row.layer_tokens[0])} to {sum(row.layer_tokens[-1])}",
            _spread(row.figures.get(PREFILL)),
            _times(row.ratios.get("llm_prefill / ideal")),
            _times(row.ratios.get("llm_prefill / plain")),
            _spread(row.figures.get(FIRST_TOKEN)),
            _speedup(row.speedups.get("time_to_first_token")),
            _rate(row.figures.get(DECODE)),
            _times(row.ratios.get("decode tokens/s / plain")),
            _speedup(row.speedups.get("answer")),
            "" if row.peak_memory_bytes is None else size(row.peak_memory_bytes),
            _times(row.ratios.get("peak_memory / plain")),
            _kv(row),
            work(row.prefill_flops),
        )
    return table


def operators_table(result: SpeedResult) -> Table:
    """What each operator took and left, beside the plain model's LLM prefill."""
    table = _table("pipeline", "operator", "where", "visual tokens", "time", "of the plain LLM prefill")
    plain = next((row for row in result.rows if row.role == "plain"), None)
    for row in in_order(result.rows):
        for operator in row.operators:
            seconds = operator.seconds.median
            share = "" if plain is None else f"{seconds / plain.figures[PREFILL].median:.2%}"
            before, after = sum(operator.visual_before), sum(operator.visual_after)
            place = _where(operator)
            table.add_row(row.name, operator.operator, place, f"{before} to {after}", _spread(operator.seconds), share)
    return table


def in_order(rows: Sequence[SpeedRow]) -> list[SpeedRow]:
    """The plain model, then each pipeline with its ideal and its usual way after it."""
    names = [row.name for row in rows if row.role == "pipeline"]

    def place(row: SpeedRow) -> tuple[int, int]:
        subject = row.name.removeprefix(f"{row.role}: ")
        own = ("plain", "pipeline", "ideal", "usual").index(row.role)
        if row.role == "plain":
            return -1, 0
        return names.index(subject) if subject in names else len(names), own

    return sorted(rows, key=place)


def _facts(facts: Mapping[str, Any]) -> str:
    return ", ".join(_fact(name, value) for name, value in facts.items() if value is not None)


def _fact(name: str, value: Any) -> str:
    if name.endswith("_bytes"):
        return f"{_words(name[: -len('_bytes')])} {size(value)}"
    if isinstance(value, Mapping):
        return f"{_words(name)} ({_facts(value)})"
    if isinstance(value, (list, tuple)):
        return f"{_words(name)} {'x'.join(str(each) for each in value)}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{_words(name)} {value:,}"
    return f"{_words(name)} {value}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _quantity(name: str, figure: Figure) -> str:
    """A figure of the vision encoder, by its name's unit."""
    if name == VISION:
        return _spread(figure)
    if name.endswith("_seconds"):
        return f"{_words(name[: -len('_seconds')])} {_spread(figure)}"
    return _fact(name, figure.median)


def _spread(figure: Figure | None) -> str:
    if figure is None:
        return ""
    low, high = (milliseconds(value).removesuffix(" ms") for value in (min(figure.values), max(figure.values)))
    return f"{milliseconds(figure.median)} [{low}, {high}]"


def _times(figure: Figure | None) -> str:
    return "" if figure is None else f"{figure.median:.2f}"


def _rate(figure: Figure | None) -> str:
    return "" if figure is None else f"{figure.median:.1f}"


def _speedup(speedup: Speedup | None) -> str:
    return "" if speedup is None else f"{speedup.factor.median:.2f} x ({speedup.ceiling:.2f} x)"


def _kv(row: SpeedRow) -> str:
    if row.kv_bytes is None:
        return f"{size(row.kv_bytes_by_formula)} (formula)"
    if row.kv_bytes != row.kv_bytes_by_formula:
        return f"{size(row.kv_bytes)} (formula: {size(row.kv_bytes_by_formula)}!)"
    return size(row.kv_bytes)


def _where(operator: OperatorCost) -> str:
    return "before the LLM" if operator.layer is None else f"after layer {operator.layer}"


def _table(first: str, *others: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.MARKDOWN)
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table
