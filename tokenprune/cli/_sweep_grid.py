# SPDX-License-Identifier: Apache-2.0
"""The combinations of parameters that a sweep tries, and the pipeline of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, product
from typing import TYPE_CHECKING, Any

from tokenprune.cli._method import operator_of

if TYPE_CHECKING:
    from tokenprune.pipeline import Pipeline

METHOD = "method"

Point = dict[str, Any]
"""Parameter -> value, in the order of the operators' arguments; before them under ``method`` its name, if it is one."""

Axes = Mapping[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Grid:
    """Every combination of the values of each block, block by block: one for the two stages, or one a method."""

    blocks: tuple[Axes, ...]

    def points(self) -> Iterator[Point]:
        """Combinations, the last axis fastest."""
        return chain.from_iterable(
            (dict(zip(axes, values)) for values in product(*axes.values())) for axes in self.blocks
        )


def pipeline_of(point: Point) -> Pipeline:
    """The method, or stage 1, and stage 2 where the point has a ``keep_ratio``.

    Raises:
        InvalidValueError: a value that is not allowed.
    """
    from tokenprune.operators.attn_prune import AttnPrune
    from tokenprune.operators.st_merge import STMerge
    from tokenprune.pipeline import Pipeline

    if METHOD in point:
        return Pipeline([operator_of(point[METHOD], {name: point[name] for name in point if name != METHOD})])
    merge = STMerge(point["tau"], point["cluster_ratio"], point["temporal_segment_ratio"])
    if "keep_ratio" not in point:
        return Pipeline([merge])
    return Pipeline([merge, AttnPrune(layer=point["layer"], keep_ratio=point["keep_ratio"])])
