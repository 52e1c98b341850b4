# SPDX-License-Identifier: Apache-2.0
"""Wrong usage that typer finds, said as all errors are: one line on stderr, and as JSON where that was asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from tokenprune.cli._output import INTERRUPTED, Output, is_typers


class OneLineErrors(TyperGroup):
    """The command line as a whole."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command and leave with its exit code; outside of ``standalone_mode`` errors are the caller's."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        output = Output.guess(sys.argv[1:] if args is None else args)
        try:
            code: object = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except typer.Abort:  # what older versions make of an interrupt
            code = INTERRUPTED
        except Exception as error:
            if not is_typers(error):
                raise
            code = _tell(error, output)
        sys.exit(code if isinstance(code, int) else 0)


def _tell(error: Any, output: Output) -> int:
    """Print the error; returns its exit code."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    else:
        context = getattr(error, "ctx", None)
        more = "" if context is None else f" ({context.command_path} -h says more)"
        output.error("UsageError", " ".join(f"{error.format_message()}{more}".split()))
    return int(error.exit_code)
