# SPDX-License-Identifier: Apache-2.0
"""``tokenprune bench-operators``: what each operator costs by itself, and how that grows with the clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokenprune.cli._machine import DeviceOption, Machine
from tokenprune.cli._made_up_clips import FRAMES, Clips, Direct
from tokenprune.cli._measuring import Rounds
from tokenprune.cli._output import UsageError, wrong_usage
from tokenprune.cli._outputs import OutOption, Outputs
from tokenprune.cli._progress import progress_bar
from tokenprune.messages import shown

if TYPE_CHECKING:
    import torch

    from tokenprune.bench.speed.operators_result import OperatorsResult


def bench_operators(
    clips: Clips,
    rounds: Rounds,
    direct: Direct,
    *,
    layers: Annotated[
        int,
        typer.Option(
            help="Decoder layers of the prefill of which each time is given as a share (one layer, of "
            "Qwen2.5-VL-7B's sizes but for --width, is measured); 0: leave it out.",
            metavar="N",
        ),
    ] = 28,
    limit_seconds: Annotated[
        float, typer.Option(help="Leave out an operator on clips where one run takes longer.", metavar="X")
    ] = 60.0,
    clock: Annotated[
        str,
        typer.Option(help="wall, or processor: of this process alone, on a CPU with OMP_NUM_THREADS=1."),
    ] = "wall",
    device: DeviceOption = None,
    dtype: Annotated[
        str,
        typer.Option(
            help="Of the visual tokens: auto (float32 on a CPU, bfloat16 on a GPU), float32, bfloat16 or float16."
        ),
    ] = "auto",
    out: OutOption = None,
) -> OperatorsMeasured:
    """Measure each operator by itself, on made-up clips of Qwen2.5-VL's size, all in turn.

    Every method is shown the whole clip and keeps a quarter: of a schedule one stage is asked, after the prefill one
    layer. Stage 1 stands beside a direct, frame-by-frame implementation of the published method. No model is needed.
    """
    machine, outputs = Machine(device, dtype), Outputs(out)
    from tokenprune.bench.speed.operators import measure_operators
    from tokenprune.bench.speed.operators_request import OperatorsRequest

    there = _device(machine.device)
    with wrong_usage():
        request = OperatorsRequest(
            tuple(clips.frames or FRAMES),
            clips.rows,
            clips.columns,
            clips.width,
            clips.static,
            rounds.rounds,
            rounds.warmup,
            direct_up_to=0 if direct.no_direct else direct.direct_up_to,
            device=there,
            dtype=_dtype(machine.dtype, there),
            layers=layers,
            limit=limit_seconds,
            clock=clock,
        )
    with progress_bar("runs") as progress:
        result = measure_operators(request, progress)
    return OperatorsMeasured(result, outputs.record(result.to_dict()))


@dataclass(frozen=True)
class OperatorsMeasured:
    """What was measured, and the record of it."""

    result: OperatorsResult
    data: Mapping[str, Any]

    def to_dict(self) -> Mapping[str, Any]:
        """JSON-ready."""
        return self.data

    def render(self) -> None:
        """Print the tables."""
        from tokenprune.cli._bench_operators_table import print_tables

        print_tables(self.result)


def _device(name: str | None) -> torch.device:
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device must be cpu, cuda, cuda:1, ..., got {shown(name)}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device {name}: torch sees {torch.cuda.device_count()} CUDA devices")
    return device


def _dtype(name: str | None, device: torch.device) -> torch.dtype:
    import torch

    if name is None or name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return getattr(torch, name)
