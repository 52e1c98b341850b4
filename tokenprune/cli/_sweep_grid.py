# SPDX-License-Identifier: Apache-2.0
"""The parameters that a sweep tries, and the pipeline of each combination."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from tokenprune.cli._pipeline import parse_layer
from tokenprune.cli._usage import UsageError
from tokenprune.errors import InvalidValueError
from tokenprune.messages import shown

if TYPE_CHECKING:
    from tokenprune.pipeline import Pipeline

TAU = "0.7,0.8,0.9"
CLUSTER_RATIO = "0.3,0.5,0.7"
SEGMENT_RATIO = "0.25,0.5"
KEEP_RATIO = 0.4

Point = dict[str, Any]
"""Parameter -> value, in the order of the operators' arguments."""


@dataclass(frozen=True)
class Grid:
    """Every combination of these values; stage 2 is part of it where one of its two axes is given."""

    axes: dict[str, tuple[Any, ...]]

    def points(self) -> Iterator[Point]:
        """Combinations, the last axis fastest."""
        return (dict(zip(self.axes, values)) for values in product(*self.axes.values()))


def parse_grid(
    tau: str, cluster: str, segment: str, keep: str | None, layer: str | None, *, as_json: bool = False
) -> Grid:
    """The grid that comma-separated values span.

    Raises:
        UsageError: a value that is no number, or that its operator does not allow.
    """
    from tokenprune.named import LAYER

    axes = {
        "tau": _values("--tau", tau, float, as_json),
        "cluster_ratio": _values("--cluster-ratio", cluster, float, as_json),
        "temporal_segment_ratio": _values("--segment-ratio", segment, float, as_json),
    }
    if keep is not None or layer is not None:
        axes["keep_ratio"] = (KEEP_RATIO,) if keep is None else _values("--keep-ratio", keep, float, as_json)
        axes["layer"] = (LAYER,) if layer is None else _values("--layer", layer, parse_layer, as_json)
    grid = Grid(axes)
    try:
        for point in grid.points():
            pipeline_of(point)
    except InvalidValueError as error:
        raise UsageError(str(error), as_json) from error
    return grid


def pipeline_of(point: Point) -> Pipeline:
    """Stage 1, and stage 2 where the point has a ``keep_ratio``.

    Raises:
        InvalidValueError: a value that is not allowed.
    """
    from tokenprune.operators.attn_prune import AttnPrune
    from tokenprune.operators.st_merge import STMerge
    from tokenprune.pipeline import Pipeline

    merge = STMerge(point["tau"], point["cluster_ratio"], point["temporal_segment_ratio"])
    if "keep_ratio" not in point:
        return Pipeline([merge])
    return Pipeline([merge, AttnPrune(layer=point["layer"], keep_ratio=point["keep_ratio"])])


def _values(option: str, text: str, read: Callable[[str], Any], as_json: bool) -> tuple[Any, ...]:
    try:
        return tuple(dict.fromkeys(read(part) for part in text.split(",")))
    except ValueError:
        raise UsageError(f"{option} must be numbers with commas between them, got {shown(text)}", as_json) from None
