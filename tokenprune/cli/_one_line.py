# SPDX-License-Identifier: Apache-2.0
"""Wrong usage that typer finds, said as all errors are: one line on stderr, and as JSON where that was asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from tokenprune.cli._common import INTERRUPTED, is_usage
from tokenprune.cli._usage import UsageError

JSON = "--json"


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
        as_json = JSON in (sys.argv[1:] if args is None else args)
        try:
            code: object = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except typer.Abort:  # what older versions make of an interrupt
            code = INTERRUPTED
        except Exception as error:
            if not is_usage(error):
                raise
            code = _tell(error, as_json)
        sys.exit(code if isinstance(code, int) else 0)


def _tell(error: Any, as_json: bool) -> int:
    """Print the error; returns its exit code."""
    context = getattr(error, "ctx", None)
    if isinstance(error, UsageError) or type(error).__name__ == "NoArgsIsHelpError":
        error.show()
    else:
        more = "" if context is None else f" ({context.command_path} -h says more)"
        UsageError(f"{error.format_message()}{more}", as_json).show()
    return int(error.exit_code)
