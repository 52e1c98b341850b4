# SPDX-License-Identifier: Apache-2.0
"""``tokenprune bench-operators``: what each operator costs by itself, and how that grows with the clip."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokenprune.cli._common import DebugFlag, JsonFlag, guarded, print_json
from tokenprune.cli._machine import DeviceOption, Machine
from tokenprune.cli._outputs import check_outputs, record
from tokenprune.cli._progress import progress_bar
from tokenprune.cli._usage import UsageError
from tokenprune.errors import InvalidValueError
from tokenprune.messages import shown

if TYPE_CHECKING:
    import torch

    from tokenprune.bench.speed.operators_result import OperatorsResult

FRAMES = (4, 16, 48, 192)


def bench_operators(
    frames: Annotated[
        list[int] | None,
        typer.Option(
            help=f"Token frames of a clip; may be repeated; {', '.join(map(str, FRAMES))} where none is given.",
            metavar="T",
            show_default=False,
        ),
    ] = None,
    rows: Annotated[int, typer.Option(help="Token rows of a frame.", metavar="N")] = 16,
    columns: Annotated[int, typer.Option(help="Token columns of a frame.", metavar="N")] = 18,
    width: Annotated[int, typer.Option(help="Components of a visual token.", metavar="N")] = 3584,
    static: Annotated[
        float, typer.Option(help="Fraction of the positions that stand still within a scene.", metavar="FRACTION")
    ] = 0.5,
    rounds: Annotated[int, typer.Option(help="Counted runs of everything, in turn.", metavar="N")] = 5,
    warmup: Annotated[int, typer.Option(help="Runs before them that are not counted.", metavar="N")] = 1,
    device: DeviceOption = None,
    dtype: Annotated[
        str,
        typer.Option(
            help="Of the visual tokens: auto (float32 on a CPU, bfloat16 on a GPU), float32, bfloat16 or float16."
        ),
    ] = "auto",
    no_direct: Annotated[
        bool, typer.Option("--no-direct", help="Leave out the direct implementation of the published method.")
    ] = False,
    direct_up_to: Annotated[
        int | None,
        typer.Option(help="Leave it out on clips of more frames than this.", metavar="T", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Also write the result to this file, as JSON.", metavar="FILE")
    ] = None,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Measure each operator by itself, on made-up clips of Qwen2.5-VL's size, all in turn.

    Stage 1 stands beside a direct, frame-by-frame implementation of the published method. No model is needed.
    """
    with guarded(debug, as_json):
        machine = Machine.check(device, dtype, None, as_json)
        check_outputs(out, None, as_json)
        if no_direct and direct_up_to is not None:
            raise UsageError("choose one of --no-direct and --direct-up-to", as_json)
        from tokenprune.bench.speed.operators import measure_operators
        from tokenprune.bench.speed.operators_request import OperatorsRequest

        there = _device(machine.device, as_json)
        try:
            request = OperatorsRequest(
                tuple(frames or FRAMES),
                rows,
                columns,
                width,
                static,
                rounds,
                warmup,
                direct_up_to=0 if no_direct else direct_up_to,
                device=there,
                dtype=_dtype(machine.dtype, there),
            )
        except InvalidValueError as error:
            raise UsageError(str(error), as_json) from error
        with progress_bar("runs") as progress:
            result = measure_operators(request, progress)
        _show(result, out, as_json)


def _device(name: str | None, as_json: bool) -> torch.device:
    import torch

    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device must be cpu, cuda, cuda:1, ..., got {shown(name)}", as_json) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"--device {name}: torch sees {torch.cuda.device_count()} CUDA devices", as_json)
    return device


def _dtype(name: str | None, device: torch.device) -> torch.dtype:
    import torch

    if name is None or name == "auto":
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    return getattr(torch, name)


def _show(result: OperatorsResult, out: Path | None, as_json: bool) -> None:
    data = record(result.to_dict(), out)
    if as_json:
        print_json(data)
        return
    from tokenprune.cli._bench_operators_table import print_tables

    print_tables(result)
