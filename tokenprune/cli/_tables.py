# SPDX-License-Identifier: Apache-2.0
"""Tables in Markdown, so that they can be pasted as they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

WIDER_THAN_ANY = 1000
"""Columns; a table takes what it needs of them."""


def markdown_table(first: str, *others: str) -> Table:
    """No rows yet; the first column is for names, the others for numbers."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.MARKDOWN)
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def text_table(*names: str) -> Table:
    """No rows yet; every column is for words."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.MARKDOWN)
    for name in names:
        table.add_column(name, no_wrap=True)
    return table


def print_wide(parts: Iterable[Table | str]) -> None:
    """Print tables and lines to stdout, never folded to the width of a terminal."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, width=WIDER_THAN_ANY)
    for part in parts:
        console.print(part)
