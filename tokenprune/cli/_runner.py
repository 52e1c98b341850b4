# SPDX-License-Identifier: Apache-2.0
"""Which installed adapter loads the model that a command was given, and what is said where none is given."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from tokenprune.errors import NoAdapterError

if TYPE_CHECKING:
    from tokenprune.bench.runner import VideoRunner
    from tokenprune.loading import Plugin

HOOK = "tokenprune_runner"
SHIPPED = "shipped"
SHIPPED_NOTE = (
    "tokenprune: no --model given, so the small model that ships with tokenprune answers; "
    "it knows little beyond clips like demo"
)
_NAMED = 8

ModelOption = Annotated[
    str | None,
    typer.Option(help="A checkpoint directory or id; the small shipped model where none is given.", metavar="NAME"),
]


def find_runner(model: str | None, plugins: Iterable[Plugin] | None = None) -> VideoRunner:
    """The first adapter, in the order of their names, that takes this model; None takes any, for its shipped model.

    Raises:
        NoAdapterError: none does; the message says why.
        ModelLoadError: there is no such model.
    """
    from tokenprune.bench.offers import offers

    reasons: list[str] = []
    for plugin, runner in offers(HOOK, reasons, plugins):
        reason = None if model is None else runner.declines(model)
        if reason is None:
            return runner
        reasons.append(f"{plugin.info.name} {reason}")
    wanted = "runs videos" if model is None else f"knows the model {model}"
    raise NoAdapterError(f"no adapter {wanted}: {'; '.join(reasons) or 'none is installed'}")


def shipped_note(unknown: Sequence[str]) -> str:
    """That the shipped model answers; with the words of the question that it does not know."""
    if not unknown:
        return SHIPPED_NOTE
    more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
    return f"{SHIPPED_NOTE}, and not the words: {', '.join(unknown[:_NAMED])}{more}"


def say_note(note: str) -> None:
    """A line on stderr, before the work begins."""
    print(note, file=sys.stderr, flush=True)
