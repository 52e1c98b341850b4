# SPDX-License-Identifier: Apache-2.0
"""What the commands share: exit codes and the one-line error."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated

import typer

FAILED = 1
INTERRUPTED = 130

JsonFlag = Annotated[bool, typer.Option("--json", help="Write the result, or the error, to stdout as JSON.")]
DebugFlag = Annotated[bool, typer.Option("--debug", help="Show the full traceback of an error.")]


@contextmanager
def guarded(debug: bool = False, as_json: bool = False) -> Generator[None, None, None]:
    """Run a command's body; an exception becomes one line on stderr and exit code 1, an interrupt 130.

    Args:
        debug: print the traceback before the line.
        as_json: also write ``{"error": {"type": ..., "message": ...}}`` to stdout.

    Wrong usage found in the body (:class:`typer.BadParameter`) and :class:`typer.Exit` pass through.
    """
    try:
        yield
    except KeyboardInterrupt:
        if as_json:
            print_json({"error": {"type": "KeyboardInterrupt", "message": "interrupted"}})
        print("tokenprune: interrupted", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        # The reader went away (`| head`); without this the interpreter complains once more when it flushes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(FAILED) from None
    except Exception as error:
        if is_usage(error):
            raise
        if debug:
            traceback.print_exc()
        if as_json:
            print_json({"error": {"type": type(error).__name__, "message": str(error)}})
        print(f"tokenprune: {one_line(error)}", file=sys.stderr)
        raise typer.Exit(FAILED) from None


def print_json(value: object) -> None:
    """Write ``value`` to stdout as JSON, with NaN and infinity refused."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8", sys.stdout.errors or "strict")
    except UnicodeEncodeError:  # an old terminal, or a file name that is no text
        text = json.dumps(value, indent=2, allow_nan=False)
    print(text, flush=True)


def one_line(error: BaseException) -> str:
    """The error's message on one line, with its type where the message alone would say little."""
    message = " ".join(str(error).split())
    from tokenprune.errors import TokenPruneError

    if isinstance(error, (TokenPruneError, OSError)) and message:
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def is_usage(error: Exception) -> bool:
    """Whether typer handles this exception itself (click's own classes, wherever this version of typer keeps them)."""
    return isinstance(error, (typer.Exit, typer.Abort)) or hasattr(error, "exit_code")
