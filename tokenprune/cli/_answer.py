# SPDX-License-Identifier: Apache-2.0
"""Answers as JSON and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tokenprune.cli._saving import ratio, ratio_text
from tokenprune.messages import site_named

if TYPE_CHECKING:
    from rich.table import Table

    from tokenprune.answers import Answer


def answer_to_dict(answer: Answer) -> dict[str, Any]:
    """JSON-ready: text, counts, seconds, peak memory, and the report where there is one."""
    return {
        "answer": answer.text,
        "new_tokens": len(answer.token_ids),
        "seconds": {
            "vision": answer.vision_seconds,
            "prefill": answer.prefill_seconds,
            "decode": answer.decode_seconds,
        },
        "peak_memory_bytes": answer.peak_memory_bytes,
        "report": None if answer.report is None else dict(answer.report.to_dict()),
    }


def answer_table(pruned: Mapping[str, Any], plain: Mapping[str, Any] | None = None) -> Table:
    """A table of :func:`answer_to_dict` values; with `plain`, the plain model beside the pruned one.

    Args:
        pruned: with a report.
        plain: without one: the plain model's tokens are those the report starts from.
    """
    from rich.table import Table

    table = Table(show_header=plain is not None, box=None, pad_edge=False)
    table.add_column("")
    if plain is not None:
        table.add_column("plain", justify="right", overflow="fold")
    table.add_column("pruned", justify="right", overflow="fold")
    if plain is not None:
        table.add_column("ratio", justify="right")

    def row(name: str, before: str, after: str, times: float | None = None) -> None:
        table.add_row(*([name, before, after, ratio_text(times)] if plain is not None else [name, after]))

    if plain is not None:
        row("answer", plain["answer"], pruned["answer"])
    for name, before, after, times in _token_rows(pruned["report"]):
        row(name, before, after, times)
    for part in ("vision", "prefill", "decode"):
        after = pruned["seconds"][part]
        before = None if plain is None else plain["seconds"][part]
        row(f"{part} time", "" if before is None else _seconds(before), _seconds(after), ratio(before, after))
    row("new tokens", "" if plain is None else str(plain["new_tokens"]), str(pruned["new_tokens"]))
    if pruned["peak_memory_bytes"] is not None:
        after = pruned["peak_memory_bytes"]
        before = None if plain is None else plain["peak_memory_bytes"]
        row("peak memory", "" if before is None else _bytes(before), _bytes(after), ratio(before, after))
    return table


def _token_rows(report: Mapping[str, Any] | None) -> list[tuple[str, str, str, float | None]]:
    """(name, plain, pruned, how many times less) of the one prompt row."""
    if report is None:
        return []
    total = report["visual_tokens"][0]
    rows: list[tuple[str, str, str, float | None]] = [("visual tokens", str(total), str(total), None)]
    for stage in report["stages"]:
        place = site_named(stage["site"], stage["layer"])
        before, after = stage["visual_before"][0], stage["visual_after"][0]
        rows.append((f"  {stage['operator']} {place}", "", f"{before} -> {after}", ratio(before, after)))
    seen = report["layer_averaged_retained"][0]
    rows.append(("visual tokens seen, mean over layers", "100.0%", f"{seen:.1%}", ratio(1, seen)))
    if report["kv_bytes"] is not None:
        whole, cut = _bytes(report["kv_bytes_unpruned"]), _bytes(report["kv_bytes"])
        times = ratio(report["kv_bytes_unpruned"], report["kv_bytes"])
        rows.append(("KV cache after the prefill", whole, f"{cut} of {whole}", times))
    return rows


def _seconds(value: float) -> str:
    return f"{value:.3f} s" if value >= 1 else f"{value * 1000:.1f} ms"


def _bytes(value: int) -> str:
    size = float(value)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.2f} GiB"
