# SPDX-License-Identifier: Apache-2.0
"""Result files of a command: checked before it begins, written when it is done."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenprune.cli._usage import UsageError

PLOT_SUFFIXES = (".png", ".svg", ".pdf")


def check_outputs(out: Path | None, plot: Path | None, as_json: bool) -> None:
    """Whatever would fail only after everything has been measured is refused first.

    Raises:
        UsageError: a file in a directory that does not exist, a picture of an unknown kind, or no matplotlib.
    """
    for option, path in (("--out", out), ("--plot", plot)):
        if path is not None and (path.is_dir() or not path.parent.is_dir()):
            raise UsageError(f"{option} must name a file in a directory that exists, got {path}", as_json)
    if plot is None:
        return
    if plot.suffix not in PLOT_SUFFIXES:
        raise UsageError(f"--plot must end in {', '.join(PLOT_SUFFIXES)}, got {plot}", as_json)
    if find_spec("matplotlib") is None:
        raise UsageError('--plot needs matplotlib: pip install "tokenprune-vlm[plot]"', as_json)


def record(result: Mapping[str, Any], out: Path | None) -> dict[str, Any]:
    """The result with the command that made it, which is written to ``out`` as JSON, too."""
    data = {**result, "command": shlex.join(["tokenprune", *sys.argv[1:]])}
    if out is not None:
        from tokenprune.files import write_text

        write_text(out, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return data
