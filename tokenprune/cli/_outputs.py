# SPDX-License-Identifier: Apache-2.0
"""Result files of a command: checked before it begins, written when it is done."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from tokenprune.cli._output import UsageError

PLOT_SUFFIXES = (".png", ".svg", ".pdf")

OutOption = Annotated[Path | None, typer.Option(help="Also write the result to this file, as JSON.", metavar="FILE")]
PlotOption = Annotated[Path | None, typer.Option(help="Also draw the result (needs the extra [plot]).", metavar="FILE")]
ResultsOption = Annotated[Path, typer.Option(help="Results; a file that is there is gone on with.", metavar="FILE")]


@dataclass(frozen=True)
class Outputs:
    """Files for the result; whatever would fail only after everything has been measured is refused first.

    Raises:
        UsageError: a file that holds something else, or in a directory that is not there or cannot be written to; a
            picture of an unknown kind, or no matplotlib.
    """

    out: OutOption = None
    plot: PlotOption = None

    def __post_init__(self) -> None:
        if self.out is not None:
            check_place("--out", self.out)
            if self.out.is_file() and not _is_replaceable(self.out):
                raise UsageError(f"--out would overwrite {self.out}, which holds no result of ours; give another file")
        if self.plot is None:
            return
        check_place("--plot", self.plot)
        if self.plot.suffix not in PLOT_SUFFIXES:
            raise UsageError(f"--plot must end in {', '.join(PLOT_SUFFIXES)}, got {self.plot}")
        if find_spec("matplotlib") is None:
            raise UsageError('--plot needs matplotlib: pip install "tokenprune-vlm[plot]"')

    def record(self, result: Mapping[str, Any], draw: Callable[[Path], None] | None = None) -> dict[str, Any]:
        """The result with the command that made it, which is written to ``out`` as JSON, too.

        Args:
            result: JSON-ready.
            draw: makes the picture that was asked for.
        """
        data = {**result, "command": shlex.join(["tokenprune", *sys.argv[1:]])}
        if self.out is not None:
            from tokenprune.files import write_text

            write_text(self.out, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        if self.plot is not None and draw is not None:
            draw(self.plot)
        return data


def check_place(option: str, path: Path) -> None:
    """Raise :class:`UsageError` unless a file can be written there."""
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(f"{option} must name a file in a directory that exists, got {path}")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"{option} must name a file in a directory that can be written to, got {path}")


def _is_replaceable(path: Path) -> bool:
    """Whether nothing is lost with the file: it is empty, or what a command wrote."""
    try:
        text = path.read_text("utf-8")
        return not text.strip() or "command" in json.loads(text)
    except (ValueError, TypeError, RecursionError, OSError):
        return False
