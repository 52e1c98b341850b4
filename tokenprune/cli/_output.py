# SPDX-License-Identifier: Apache-2.0
"""How a command's outcome and its errors are shown: for people or as JSON, which is known here and nowhere else."""

from __future__ import annotations

import json
import os
import sys
import traceback
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import typer

FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130
JSON = "--json"


class Outcome(Protocol):
    """What a command returns."""

    def to_dict(self) -> Mapping[str, Any]:
        """JSON-ready, for programs."""
        ...

    def render(self) -> None:
        """Print it to stdout, for people."""
        ...


class UsageError(Exception):
    """Wrong usage that only a command's body can see: exit code 2. Names the option, the value and what is allowed."""


@dataclass(frozen=True)
class Output:
    """The two options that every command has."""

    as_json: Annotated[bool, typer.Option(JSON, help="Write the result, or the error, to stdout as JSON.")] = False
    debug: Annotated[bool, typer.Option("--debug", help="Show the full traceback of an error.")] = False

    @classmethod
    def guess(cls, arguments: Sequence[str]) -> Output:
        """What is meant by arguments that were not parsed, or cannot be."""
        return cls(as_json=JSON in arguments)

    def show(self, outcome: Outcome) -> None:
        """Show what a command returned."""
        if self.as_json:
            print_json(outcome.to_dict())
        else:
            outcome.render()

    def error(self, kind: str, message: str, line: str | None = None) -> None:
        """One line on stderr (`line`, or the message); as JSON also ``{"error": {"type": ..., "message": ...}}``."""
        if self.as_json:
            print_json({"error": {"type": kind, "message": message}})
        print(f"tokenprune: {message if line is None else line}", file=sys.stderr)

    @contextmanager
    def guarded(self) -> Generator[None, None, None]:
        """Run a command's body: an exception becomes one line and an exit code, after its traceback with ``debug``.

        A warning of ours becomes one line, too.

        Wrong usage found by typer and :class:`typer.Exit` pass through.
        """
        try:
            with _warnings_on_one_line():
                yield
        except KeyboardInterrupt:
            self.error("KeyboardInterrupt", "interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # The reader went away (`| head`); without this the interpreter complains again when it flushes stdout.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(FAILED) from None
        except UsageError as error:
            self.error("UsageError", " ".join(str(error).split()))
            raise typer.Exit(WRONG_USAGE) from None
        except Exception as error:
            if is_typers(error):
                raise
            if self.debug:
                traceback.print_exc()
            self.error(type(error).__name__, str(error), one_line(error))
            raise typer.Exit(FAILED) from None


@contextmanager
def wrong_usage() -> Generator[None, None, None]:
    """Say that a value which an option gave is not allowed, as :class:`UsageError`."""
    from tokenprune.errors import InvalidValueError

    try:
        yield
    except InvalidValueError as error:
        raise UsageError(str(error)) from error


@contextmanager
def _warnings_on_one_line() -> Generator[None, None, None]:
    from tokenprune.errors import TokenPruneWarning

    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, TokenPruneWarning):
                print(f"tokenprune: {' '.join(str(message).split())}", file=sys.stderr)
            else:
                usual(message, category, *where, **more)

        warnings.showwarning = show
        yield


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


def is_typers(error: Exception) -> bool:
    """Whether typer handles this exception itself (click's own classes, wherever this version of typer keeps them)."""
    return isinstance(error, (typer.Exit, typer.Abort)) or hasattr(error, "exit_code")
