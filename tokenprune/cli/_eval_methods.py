# SPDX-License-Identifier: Apache-2.0
"""The options of ``tokenprune eval world`` that name methods, budgets and what is compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tokenprune.cli._usage import UsageError
from tokenprune.messages import not_one_of, shown

if TYPE_CHECKING:
    from tokenprune.bench.benchmark import MethodGrid

MASSES: dict[str, tuple[str | None, ...]] = {"with": ("sizes",), "without": (None,), "both": (None, "sizes")}
BUDGETS = "0.25,0.15,0.1,0.05"

MethodsOption = Annotated[
    str | None,
    typer.Option(
        help="Methods before the LLM at each of --budgets: all, or class names such as Cover,STMerge.",
        metavar="all|NAME,...",
        show_default=False,
    ),
]
BudgetsOption = Annotated[
    str | None,
    typer.Option(help=f"Fractions kept by --methods; {BUDGETS} if left out.", metavar="X,...", show_default=False),
]
MassOption = Annotated[
    str | None,
    typer.Option(
        help="Attention mass: with, without or both. Left out: presets and files as they are, methods both.",
        metavar="HOW",
        show_default=False,
    ),
]
AgainstOption = Annotated[
    list[str] | None,
    typer.Option(
        "--against",
        help="Compare every row with this one, question by question: a row, or a method at the same budget; plain if "
        "left out; may be repeated.",
        metavar="NAME",
        show_default=False,
    ),
]


def method_grid(methods: str | None, budgets: str | None, mass: str | None, as_json: bool) -> MethodGrid | None:
    """What ``--methods`` and ``--budgets`` said.

    Raises:
        UsageError: an unknown method, no fraction, or budgets of nothing.
    """
    if methods is None:
        if budgets is not None:
            raise UsageError("--budgets needs --methods", as_json)
        return None
    from tokenprune.bench.benchmark import MethodGrid
    from tokenprune.bench.world_benchmark.methods import methods as known_methods

    names = None if methods == "all" else tuple(dict.fromkeys(_listed(methods)))
    known = known_methods()
    for name in names or ():
        if name not in known:
            raise UsageError(not_one_of("--methods", ["all", *known], name), as_json)
    fractions = tuple(dict.fromkeys(_fraction(text, as_json) for text in _listed(budgets or BUDGETS)))
    return MethodGrid(names, fractions, masses(mass, as_json) or MASSES["both"])


def masses(mass: str | None, as_json: bool) -> tuple[str | None, ...]:
    """What ``--mass`` said; empty: nothing.

    Raises:
        UsageError: something else than the three words.
    """
    if mass is not None and mass not in MASSES:
        raise UsageError(not_one_of("--mass", MASSES, mass), as_json)
    return () if mass is None else MASSES[mass]


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _fraction(text: str, as_json: bool) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise UsageError(f"--budgets must be fractions in (0, 1], got {shown(text)}", as_json)
    return value
