# SPDX-License-Identifier: Apache-2.0
"""``tokenprune bench``: what pruning costs and saves, in seconds, memory and arithmetic."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokenprune.cli._common import DebugFlag, JsonFlag, guarded, print_json
from tokenprune.cli._machine import AttnOption, DeviceOption, DtypeOption, Machine
from tokenprune.cli._outputs import check_outputs, record
from tokenprune.cli._preset_names import PRESET_HELP, complete_preset
from tokenprune.cli._progress import progress_bar
from tokenprune.cli._usage import UsageError
from tokenprune.cli.eval import load_pipelines
from tokenprune.cli.run import SHIPPED
from tokenprune.errors import InvalidValueError
from tokenprune.messages import shown

if TYPE_CHECKING:
    from tokenprune.bench.speed.request import SpeedBench, SpeedRequest
    from tokenprune.bench.speed.result import SpeedResult
    from tokenprune.pipeline import Pipeline

DEFAULTS = ["default", "baseline"]
STATIC = 0.5
SHIPPED_NOTE = (
    "tokenprune: neither --shape nor --model given, so the small model that ships with tokenprune is measured; "
    "it is far too small for its times to say anything about large ones"
)


def bench(
    shape: Annotated[
        str | None,
        typer.Option(
            help="A model of this shape, with random weights, such as qwen2.5-vl-7b.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="A checkpoint directory or id; the small shipped model where none is given.", metavar="NAME"),
    ] = None,
    presets: Annotated[
        list[str] | None,
        typer.Option(
            "--preset",
            help=f"{PRESET_HELP}; may be repeated; {' and '.join(DEFAULTS)} where nothing is chosen.",
            metavar="NAME",
            show_default=False,
            autocompletion=complete_preset,
        ),
    ] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option("--pipeline", help="A pipeline file (JSON); may be repeated.", metavar="FILE", show_default=False),
    ] = None,
    grid: Annotated[
        str,
        typer.Option(
            help="Visual tokens of the clip: steps in time x rows x columns (Qwen2.5-VL: two frames a step).",
            metavar="TxHxW",
        ),
    ] = "16x12x12",
    text: Annotated[int, typer.Option(help="Text tokens after the clip, at least 1.", metavar="N")] = 32,
    batch: Annotated[int, typer.Option(help="Copies of the prompt, each with its own clip.", metavar="N")] = 1,
    new_tokens: Annotated[int, typer.Option(help="Tokens decoded after the first.", metavar="N")] = 16,
    static: Annotated[
        float | None,
        typer.Option(
            help=f"With --shape: fraction of the positions that stand still; {STATIC} where none is given.",
            metavar="FRACTION",
            show_default=False,
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(help="Counted runs of everything, in turn.", metavar="N")] = 5,
    warmup: Annotated[int, typer.Option(help="Runs before them that are not counted.", metavar="N")] = 1,
    no_usual: Annotated[
        bool, typer.Option("--no-usual", help="Leave out the usual way: eager attention, weights put out, masking.")
    ] = False,
    profile: Annotated[
        Path | None, typer.Option(help="Also write traces of one more run to this directory.", metavar="DIR")
    ] = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    attn: AttnOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Also write the result to this file, as JSON.", metavar="FILE")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Also draw where the time goes (needs the extra [plot]).", metavar="FILE")
    ] = None,
    as_json: JsonFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Measure speed and memory, plain and pruned, in one run.

    Beside each pipeline stand the plain model, the ideal (the plain layers at the pipeline's lengths, no operator) and
    the usual way (eager attention whose weights are put out, then masking).
    """
    with guarded(debug, as_json):
        machine = Machine.check(device, dtype, attn, as_json)
        check_outputs(out, plot, as_json)
        _check_profile(profile, as_json)
        pipelines = _pipelines(presets or ([] if files else DEFAULTS), files or [], as_json)
        size = _parse_grid(grid, as_json)
        if static is not None and shape is None:
            raise UsageError("--static is for --shape; a checkpoint makes its own features of the clip", as_json)
        from tokenprune.bench.speed.request import SpeedRequest

        try:
            request = SpeedRequest(
                pipelines,
                shape,
                model,
                size,
                text,
                batch,
                new_tokens,
                STATIC if static is None else static,
                rounds,
                warmup,
                usual=not no_usual,
                profile=profile,
                device=machine.device,
                dtype=machine.dtype,
                attn=machine.attn,
            )
        except InvalidValueError as error:
            raise UsageError(str(error), as_json) from error
        measuring = _find(shape, model, as_json)
        if shape is None and model is None:
            print(SHIPPED_NOTE, file=sys.stderr, flush=True)
        _show(_measure(measuring, request), shape or model or SHIPPED, out, plot, as_json)


def _find(shape: str | None, model: str | None, as_json: bool) -> SpeedBench:
    from tokenprune.cli._measuring import find_speed

    try:
        return find_speed(shape, model)
    except InvalidValueError as error:
        raise UsageError(str(error), as_json) from error


def _check_profile(profile: Path | None, as_json: bool) -> None:
    if profile is not None and not (profile.is_dir() or (profile.parent.is_dir() and not profile.exists())):
        raise UsageError(f"--profile must name a directory, there or in one that is, got {profile}", as_json)


def _parse_grid(grid: str, as_json: bool) -> tuple[int, int, int]:
    sizes = re.fullmatch(r"(\d{1,6})x(\d{1,6})x(\d{1,6})", grid, re.ASCII)
    if sizes is None:
        raise UsageError(f"--grid must be three numbers such as 16x12x12, got {shown(grid)}", as_json)
    frames, rows, columns = (int(size) for size in sizes.groups())
    return frames, rows, columns


def _pipelines(presets: list[str], files: list[Path], as_json: bool) -> dict[str, Pipeline]:
    """As ``eval`` names them; a file that would be taken for another row is refused."""
    for file in files:
        name = str(file)
        if name == "plain" or name in presets or name.startswith(("ideal: ", "usual: ")):
            raise UsageError(f"--pipeline must not be named like another row, got {name}", as_json)
    return load_pipelines(presets, files, as_json)


def _measure(measuring: SpeedBench, request: SpeedRequest) -> SpeedResult:
    with progress_bar("runs") as progress:
        return measuring.measure(request, progress)


def _show(result: SpeedResult, model: str, out: Path | None, plot: Path | None, as_json: bool) -> None:
    data = record({"model": model, **result.to_dict()}, out)
    if plot is not None:
        from tokenprune.cli._bench_plot import draw

        draw(result, plot)
    if as_json:
        print_json(data)
        return
    from tokenprune.cli._bench_table import print_tables

    print_tables(result)
