# SPDX-License-Identifier: Apache-2.0
"""The parameters that a sweep tries, and the pipeline of each combination."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokenprune.cli._output import UsageError, wrong_usage
from tokenprune.cli._pipeline import parse_layer
from tokenprune.messages import shown

if TYPE_CHECKING:
    from tokenprune.pipeline import Pipeline

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


@dataclass(frozen=True)
class GridOptions:
    """What the options said."""

    tau: Annotated[str, typer.Option(help="Values to try, with commas between them.")] = "0.7,0.8,0.9"
    cluster_ratio: Annotated[str, typer.Option(help="Values to try.")] = "0.3,0.5,0.7"
    segment_ratio: Annotated[str, typer.Option(help="Values to try.")] = "0.25,0.5"
    keep_ratio: Annotated[str | None, typer.Option(help="Values of stage 2 to try; adds stage 2.")] = None
    layer: Annotated[str | None, typer.Option(help="Layers of stage 2 to try; adds stage 2.")] = None

    def parse(self) -> Grid:
        """The grid that the comma-separated values span.

        Raises:
            UsageError: a value that is no number, or that its operator does not allow.
        """
        from tokenprune.named import LAYER

        axes = {
            "tau": _values("--tau", self.tau, float),
            "cluster_ratio": _values("--cluster-ratio", self.cluster_ratio, float),
            "temporal_segment_ratio": _values("--segment-ratio", self.segment_ratio, float),
        }
        if self.keep_ratio is not None or self.layer is not None:
            keep = self.keep_ratio
            axes["keep_ratio"] = (KEEP_RATIO,) if keep is None else _values("--keep-ratio", keep, float)
            axes["layer"] = (LAYER,) if self.layer is None else _values("--layer", self.layer, parse_layer)
        grid = Grid(axes)
        with wrong_usage():
            for point in grid.points():
                pipeline_of(point)
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


def _values(option: str, text: str, read: Callable[[str], Any]) -> tuple[Any, ...]:
    try:
        return tuple(dict.fromkeys(read(part) for part in text.split(",")))
    except ValueError:
        raise UsageError(f"{option} must be numbers with commas between them, got {shown(text)}") from None
