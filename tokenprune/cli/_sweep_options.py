# SPDX-License-Identifier: Apache-2.0
"""The options that say which parameters a sweep tries, of the two stages or of methods by their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from tokenprune.cli._layer import parse_layer
from tokenprune.cli._method import axes_of, parameters_of, with_options
from tokenprune.cli._output import UsageError, wrong_usage
from tokenprune.cli._sweep_grid import METHOD, Axes, Grid, pipeline_of
from tokenprune.messages import shown

TAU, CLUSTER, SEGMENTS = "0.7,0.8,0.9", "0.3,0.5,0.7", "0.25,0.5"
KEEP_RATIO = 0.4
METHOD_RATIOS = "0.25,0.1"


@dataclass(frozen=True)
class GridOptions:
    """What the options said."""

    tau: Annotated[
        str | None, typer.Option(help=f"Values to try, with commas between them; {TAU} where none are given.")
    ] = None
    cluster_ratio: Annotated[str | None, typer.Option(help=f"Values to try; else {CLUSTER}.")] = None
    segment_ratio: Annotated[str | None, typer.Option(help=f"Values to try; else {SEGMENTS}.")] = None
    keep_ratio: Annotated[
        str | None,
        typer.Option(
            help=f"Values to try: of stage 2, which they add, or of each --method; there else {METHOD_RATIOS}."
        ),
    ] = None
    layer: Annotated[
        str | None, typer.Option(help="Layers to try: of stage 2, which they add, or of each --method that has one.")
    ] = None
    method: Annotated[
        str | None,
        typer.Option(
            help="Methods to try instead of the two stages, with commas between them; `tokenprune methods` lists them.",
            metavar="NAMES",
        ),
    ] = None
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Values to try of a parameter, of each --method that has it, such as window=32,64; may be repeated.",
            metavar="PARAMETER=VALUES",
        ),
    ] = None

    def parse(self) -> Grid:
        """The grid that the comma-separated values span.

        Raises:
            UsageError: a value that is no number, or that its operator does not allow; options that do not go together.
        """
        with wrong_usage():
            grid = Grid(
                (self._stages(),)
                if self.method is None
                else self._methods([name.strip() for name in self.method.split(",")])
            )
            for point in grid.points():
                pipeline_of(point)
        return grid

    def _stages(self) -> Axes:
        from tokenprune.named import LAYER

        if self.settings:
            raise UsageError("--set is for --method")
        axes = {
            "tau": _values("--tau", TAU if self.tau is None else self.tau, float),
            "cluster_ratio": _values(
                "--cluster-ratio", CLUSTER if self.cluster_ratio is None else self.cluster_ratio, float
            ),
            "temporal_segment_ratio": _values(
                "--segment-ratio", SEGMENTS if self.segment_ratio is None else self.segment_ratio, float
            ),
        }
        if self.keep_ratio is not None or self.layer is not None:
            keep = self.keep_ratio
            axes["keep_ratio"] = (KEEP_RATIO,) if keep is None else _values("--keep-ratio", keep, float)
            axes["layer"] = (LAYER,) if self.layer is None else _values("--layer", self.layer, parse_layer)
        return axes

    def _methods(self, names: Sequence[str]) -> tuple[Axes, ...]:
        if any(value is not None for value in (self.tau, self.cluster_ratio, self.segment_ratio)):
            raise UsageError(
                "--tau, --cluster-ratio and --segment-ratio are for the two stages; with --method use --set"
            )
        options = {
            "keep_ratio": None if self.keep_ratio is None else _values("--keep-ratio", self.keep_ratio, float),
            "layer": None if self.layer is None else _values("--layer", self.layer, parse_layer),
        }
        given = with_options(options, axes_of(self.settings or []))
        blocks = {name: {METHOD: (name,), **self._of(name, given)} for name in names}
        for unused in given.keys() - {parameter for axes in blocks.values() for parameter in axes}:
            raise UsageError(f"{unused} is a parameter of none of these methods: {', '.join(blocks)}")
        return tuple(blocks.values())

    def _of(self, name: str, given: Axes) -> Axes:
        """Those of the axes that the method has; a budget, where it can have one and none is given."""
        known = parameters_of(name)
        axes = {parameter: values for parameter, values in given.items() if parameter in known}
        if "keep_ratio" in known and not {"keep_ratio", "keep"} & axes.keys():
            return {"keep_ratio": _values("--keep-ratio", METHOD_RATIOS, float), **axes}
        return axes


def _values(option: str, text: str, read: Callable[[str], Any]) -> tuple[Any, ...]:
    try:
        return tuple(dict.fromkeys(read(part) for part in text.split(",")))
    except ValueError:
        raise UsageError(f"{option} must be numbers with commas between them, got {shown(text)}") from None
