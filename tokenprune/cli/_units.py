# SPDX-License-Identifier: Apache-2.0
"""Numbers as people read them."""

from __future__ import annotations

from collections.abc import Sequence


def size(count: float) -> str:
    """Bytes in the largest unit that gives at least one."""
    return _unit(count, 1024, ("B", "KiB", "MiB", "GiB", "TiB"))


def work(count: float) -> str:
    """Floating-point operations in the largest unit that gives at least one."""
    return _unit(count, 1000, ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP"))


def milliseconds(seconds: float) -> str:
    """Three figures of what is short, whole milliseconds of what is long."""
    value = 1000 * seconds
    return f"{value:.0f} ms" if value >= 100 else f"{value:.3g} ms"


def _unit(count: float, step: int, names: Sequence[str]) -> str:
    place = 0
    while count >= step and place + 1 < len(names):
        count, place = count / step, place + 1
    return f"{count:.0f} {names[place]}" if place == 0 or count >= 100 else f"{count:.1f} {names[place]}"
