# SPDX-License-Identifier: Apache-2.0
"""The options that say what ``tokenprune bench`` measures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokenprune.cli._machine import Machine
from tokenprune.cli._measuring import Rounds
from tokenprune.cli._output import UsageError, wrong_usage
from tokenprune.cli._runner import SHIPPED, ModelOption
from tokenprune.messages import shown

if TYPE_CHECKING:
    from tokenprune.bench.speed.request import SpeedRequest
    from tokenprune.pipeline import Pipeline

STATIC = 0.5


@dataclass(frozen=True)
class Workload:
    """A model and the prompt it is given.

    Raises:
        UsageError: values that exclude each other, or that none can have.
    """

    shape: Annotated[
        str | None,
        typer.Option(
            help="A model of this shape, with random weights, such as qwen2.5-vl-7b.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None
    model: ModelOption = None
    grid: Annotated[
        str,
        typer.Option(
            help="Visual tokens of the clip: steps in time x rows x columns (Qwen2.5-VL: two frames a step).",
            metavar="TxHxW",
        ),
    ] = "16x12x12"
    text: Annotated[int, typer.Option(help="Text tokens after the clip, at least 1.", metavar="N")] = 32
    batch: Annotated[int, typer.Option(help="Copies of the prompt, each with its own clip.", metavar="N")] = 1
    new_tokens: Annotated[int, typer.Option(help="Tokens decoded after the first.", metavar="N")] = 16
    static: Annotated[
        float | None,
        typer.Option(
            help=f"With --shape: fraction of the positions that stand still; {STATIC} where none is given.",
            metavar="FRACTION",
            show_default=False,
        ),
    ] = None
    no_eager_baseline: Annotated[
        bool,
        typer.Option(
            "--no-eager-baseline", help="Leave out the eager baseline: eager attention, weights put out, masking."
        ),
    ] = False
    no_usual: Annotated[bool, typer.Option("--no-usual", hidden=True)] = False
    """What the one before was called."""
    profile: Annotated[
        Path | None, typer.Option(help="Also write traces of one more run to this directory.", metavar="DIR")
    ] = None

    def __post_init__(self) -> None:
        there = self.profile
        if there is not None and not (there.is_dir() or (there.parent.is_dir() and not there.exists())):
            raise UsageError(f"--profile must name a directory, there or in one that is, got {there}")
        if self.static is not None and self.shape is None:
            raise UsageError("--static is for --shape; a checkpoint makes its own features of the clip")

    @property
    def subject(self) -> str:
        """What is measured, by its name."""
        return self.shape or self.model or SHIPPED

    def request(self, pipelines: Mapping[str, Pipeline], rounds: Rounds, machine: Machine) -> SpeedRequest:
        """What the adapter is asked for.

        Raises:
            UsageError: a value is out of range.
        """
        from tokenprune.bench.speed.request import SpeedRequest

        with wrong_usage():
            return SpeedRequest(
                pipelines,
                self.shape,
                self.model,
                _parse_grid(self.grid),
                self.text,
                self.batch,
                self.new_tokens,
                STATIC if self.static is None else self.static,
                rounds.rounds,
                rounds.warmup,
                eager_baseline=not (self.no_eager_baseline or self.no_usual),
                profile=self.profile,
                device=machine.device,
                dtype=machine.dtype,
                attn=machine.attn,
            )


def _parse_grid(grid: str) -> tuple[int, int, int]:
    sizes = re.fullmatch(r"(\d{1,6})x(\d{1,6})x(\d{1,6})", grid, re.ASCII)
    if sizes is None:
        raise UsageError(f"--grid must be three numbers such as 16x12x12, got {shown(grid)}")
    frames, rows, columns = (int(size) for size in sizes.groups())
    return frames, rows, columns
