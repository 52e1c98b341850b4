# SPDX-License-Identifier: Apache-2.0
"""The options of ``bench-operators`` that say which clips are made up, and which of them the published method sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from tokenprune.cli._output import UsageError

FRAMES = (4, 16, 48, 192)


@dataclass(frozen=True)
class Clips:
    """The made-up clips."""

    frames: Annotated[
        list[int] | None,
        typer.Option(
            help=f"Token frames of a clip; may be repeated; {', '.join(map(str, FRAMES))} where none is given.",
            metavar="T",
            show_default=False,
        ),
    ] = None
    rows: Annotated[int, typer.Option(help="Token rows of a frame.", metavar="N")] = 16
    columns: Annotated[int, typer.Option(help="Token columns of a frame.", metavar="N")] = 18
    width: Annotated[int, typer.Option(help="Components of a visual token.", metavar="N")] = 3584
    static: Annotated[
        float, typer.Option(help="Fraction of the positions that stand still within a scene.", metavar="FRACTION")
    ] = 0.5


@dataclass(frozen=True)
class Direct:
    """Whether the published method is measured as it was published."""

    no_direct: Annotated[
        bool, typer.Option("--no-direct", help="Leave out the direct implementation of the published method.")
    ] = False
    direct_up_to: Annotated[
        int | None,
        typer.Option(help="Leave it out on clips of more frames than this.", metavar="T", show_default=False),
    ] = None

    def __post_init__(self) -> None:
        if self.no_direct and self.direct_up_to is not None:
            raise UsageError("choose one of --no-direct and --direct-up-to")
