# SPDX-License-Identifier: Apache-2.0
"""The operators' costs as tables in Markdown: a row an operator, a column a clip."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tokenprune.cli._tables import markdown_table, print_wide

if TYPE_CHECKING:
    from rich.table import Table

    from tokenprune.bench.speed.figures import Figure
    from tokenprune.bench.speed.operators_result import OperatorsResult, SubjectCost


def print_tables(result: OperatorsResult) -> None:
    """Print what was measured to stdout."""
    lines = (
        *_left_out(result),
        *_computed(result),
        *_comparisons(result),
        *_growth(result),
        *_caution(result),
        _setting(result),
    )
    tables = [seconds_table(result), *([share_table(result)] if result.setting["layers"] else [])]
    print_wide([*tables, operations_table(result), *lines])


def seconds_table(result: OperatorsResult) -> Table:
    """Median milliseconds of a run."""
    kind = "" if result.setting["clock"] == "wall" else " of the processor"
    return _table(f"milliseconds{kind} (median)", result, lambda cost: f"{1000 * cost.seconds.median:.3g}")


def share_table(result: OperatorsResult) -> Table:
    """Median share of the plain prefill of the same tokens."""
    title = f"% of the plain prefill, {result.setting['layers']} such layers (median)"
    return _table(title, result, lambda cost: "" if cost.share is None else f"{100 * cost.share.median:.3g}")


def operations_table(result: OperatorsResult) -> Table:
    """Operations dispatched, those of them that wait for the device, tokens kept."""

    def cell(cost: SubjectCost) -> str:
        kept = "" if cost.tokens_kept is None else f" / {cost.tokens_kept}"
        return f"{cost.dispatched.total} / {cost.dispatched.total_waits}{kept}"

    return _table("operations / host waits / tokens kept", result, cell)


def _table(title: str, result: OperatorsResult, cell: Callable[[SubjectCost], str]) -> Table:
    table = markdown_table(title, *(f"{case.grid[0]} frames" for case in result.cases))
    names = dict.fromkeys(cost.name for case in result.cases for cost in case.subjects)
    for name in names:
        costs = [next((cost for cost in case.subjects if cost.name == name), None) for case in result.cases]
        table.add_row(name, *("" if cost is None else cell(cost) for cost in costs))
    return table


def _left_out(result: OperatorsResult) -> list[str]:
    return [f"{name}: left out, {why}" for name, why in result.unreachable.items()]


def _computed(result: OperatorsResult) -> list[str]:
    return [
        f"{case.grid[0]} frames: the prefill is not measured but computed: that of {case.prefill_measured_at} frames, "
        "in proportion to the floating-point operations"
        for case in result.cases
        if case.prefill_measured_at not in (None, case.grid[0])
    ]


def _comparisons(result: OperatorsResult) -> list[str]:
    agreement = {True: "the same tokens kept", False: "NOT the same tokens kept", None: "tokens not compared"}
    return [
        f"{case.grid[0]} frames: {name}: {_range(figure)}; {agreement[case.same_tokens]}"
        for case in result.cases
        for name, figure in case.ratios.items()
    ]


def _growth(result: OperatorsResult) -> list[str]:
    return [
        f"STMerge, time a frame at {growth.frames} frames over that at {growth.over}: {_range(growth.per_frame)}; "
        f"without the T x T step: {_range(growth.per_frame_apart)}"
        for growth in result.growth
    ]


def _caution(result: OperatorsResult) -> list[str]:
    if result.setting["device"] != "cpu":
        return []
    return [
        "Counted on a CPU: operations and waits include bookkeeping that stays on the host beside a GPU, and no copies"
    ]


def _setting(result: OperatorsResult) -> str:
    setting, machine = result.setting, result.machine
    return (
        f"{setting['rows']} x {setting['columns']} tokens a frame, {setting['width']} wide, {setting['dtype']}, "
        f"{setting['static']:.0%} static; {setting['rounds']} rounds; {machine['device_name']}, "
        f"{machine['threads']} threads, torch {machine['torch']}"
    )


def _range(figure: Figure) -> str:
    return f"{figure.median:.2f} ({min(figure.values):.2f} to {max(figure.values):.2f})"
