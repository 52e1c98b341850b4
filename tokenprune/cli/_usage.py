# SPDX-License-Identifier: Apache-2.0
"""Wrong usage that only a command's body can see, said on one line."""

from __future__ import annotations

import sys
from typing import Any

import typer

from tokenprune.cli._common import print_json


class UsageError(typer.BadParameter):
    """Ends the command with exit code 2 and one line on stderr, without typer's usage lines.

    Args:
        message: names the option, the value and what is allowed.
        as_json: also write the error to stdout as JSON.
    """

    def __init__(self, message: str, as_json: bool = False) -> None:
        super().__init__(message)
        self.as_json = as_json

    def show(self, file: Any = None) -> None:
        """Print the error; typer calls this."""
        message = " ".join(self.message.split())
        if self.as_json:
            print_json({"error": {"type": "UsageError", "message": message}})
        print(f"tokenprune: {message}", file=file or sys.stderr)
