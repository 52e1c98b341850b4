# SPDX-License-Identifier: Apache-2.0
"""How far a long command is, on stderr, where that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager


@contextmanager
def progress_bar(unit: str) -> Generator[Callable[[int, int], None], None, None]:
    """Yields what is called with (steps done, steps in all); a bar shows them as so many ``unit``."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("loading", total=None)
        yield lambda done, total: bar.update(task, description=unit, completed=done, total=total)


@contextmanager
def status() -> Generator[Callable[[str], None], None, None]:
    """Yields what is called with what is being done, which stands on stderr where that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console

    with Console(stderr=True).status("") as line:
        yield line.update
