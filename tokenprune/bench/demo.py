# SPDX-License-Identifier: Apache-2.0
"""A clip for trying any model out."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Protocol

from tokenprune.bench.offers import offers

RUNNER_HOOK = "tokenprune_runner"


class HasDemo(Protocol):
    """A runner, or a family of models."""

    def demo(self) -> Path: ...


def demo_clip(own: HasDemo) -> Path:
    """The clip that ships with this runner or family; where none does, the first that ships with another.

    Raises:
        FileNotFoundError: none ships with any.
    """
    with suppress(FileNotFoundError):
        return own.demo()
    for _, runner in offers(RUNNER_HOOK, []):
        with suppress(FileNotFoundError):
            return runner.demo()
    raise FileNotFoundError("no clip ships with any installed adapter")
