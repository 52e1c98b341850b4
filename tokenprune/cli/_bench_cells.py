# SPDX-License-Identifier: Apache-2.0
"""What stands in a cell or a line of a speed measurement's tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tokenprune.cli._units import milliseconds, size
from tokenprune.messages import site_named

if TYPE_CHECKING:
    from tokenprune.bench.speed.figures import Figure
    from tokenprune.bench.speed.result import OperatorCost, SpeedRow, Speedup

VISION = "seconds"


def facts(values: Mapping[str, Any]) -> str:
    """Names and values, with their units, those that are known."""
    return ", ".join(_fact(name, value) for name, value in values.items() if value is not None)


def quantity(name: str, figure: Figure) -> str:
    """A figure of the vision encoder, by its name's unit."""
    if name == VISION:
        return spread(figure)
    if name.endswith("_seconds"):
        return f"{_words(name[: -len('_seconds')])} {spread(figure)}"
    return _fact(name, figure.median)


def spread(figure: Figure | None) -> str:
    """Median, least and most."""
    if figure is None:
        return ""
    low, high = (milliseconds(value).removesuffix(" ms") for value in (min(figure.values), max(figure.values)))
    return f"{milliseconds(figure.median)} [{low}, {high}]"


def times(figure: Figure | None) -> str:
    """How many times as much."""
    return "" if figure is None else f"{figure.median:.2f}"


def rate(figure: Figure | None) -> str:
    """So many a second."""
    return "" if figure is None else f"{figure.median:.1f}"


def speedup(value: Speedup | None) -> str:
    """The factor, and its ceiling."""
    return "" if value is None else f"{value.factor.median:.2f} x ({value.ceiling:.2f} x)"


def kv(row: SpeedRow) -> str:
    """Bytes of the cache; what a formula says is marked."""
    if row.kv_bytes is None:
        return f"{size(row.kv_bytes_by_formula)} (formula)"
    if row.kv_bytes != row.kv_bytes_by_formula:
        return f"{size(row.kv_bytes)} (formula: {size(row.kv_bytes_by_formula)}!)"
    return size(row.kv_bytes)


def where(operator: OperatorCost) -> str:
    """The site of an operator."""
    return site_named(operator.site, operator.layer)


def _fact(name: str, value: Any) -> str:
    if name.endswith("_bytes"):
        return f"{_words(name[: -len('_bytes')])} {size(value)}"
    if isinstance(value, Mapping):
        return f"{_words(name)} ({facts(value)})"
    if isinstance(value, (list, tuple)):
        return f"{_words(name)} {'x'.join(str(each) for each in value)}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{_words(name)} {value:,}"
    return f"{_words(name)} {value}"


def _words(name: str) -> str:
    return name.replace("_", " ")
