# SPDX-License-Identifier: Apache-2.0
"""The options that name methods, budgets and with what rows are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from tokenprune.cli._output import UsageError
from tokenprune.messages import not_one_of, shown

if TYPE_CHECKING:
    from tokenprune.bench.benchmark import MethodGrid

MASSES: dict[str, tuple[str | None, ...]] = {"with": ("sizes",), "without": (None,), "both": (None, "sizes")}
BUDGETS = "0.25,0.15,0.1,0.05"

MethodsOption = Annotated[
    str | None,
    typer.Option(
        help="Methods at each of --budgets: all, or names such as Cover,FastV. eval world takes any: inside the LLM at "
        "its paper's layers, after the prefill as a press before the question; eval agree those before the LLM.",
        metavar="all|NAME,...",
        show_default=False,
    ),
]
BudgetsOption = Annotated[
    str | None,
    typer.Option(
        help=f"Fractions kept by --methods, averaged over the layers; {BUDGETS} if left out.",
        metavar="X,...",
        show_default=False,
    ),
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
        help="Compare every row with this one, question by question: a row, random or uniform, or a method at the same "
        "budget; plain if left out; may be repeated.",
        metavar="NAME",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Methods:
    """What the options said.

    Raises:
        UsageError: budgets of nothing, or a mass that is none.
    """

    methods: MethodsOption = None
    budgets: BudgetsOption = None
    mass: MassOption = None

    def __post_init__(self) -> None:
        if self.mass is not None and self.mass not in MASSES:
            raise UsageError(not_one_of("--mass", MASSES, self.mass))
        if self.budgets is not None and self.methods is None:
            raise UsageError("--budgets needs --methods")

    @property
    def masses(self) -> tuple[str | None, ...]:
        """What ``--mass`` said; empty: nothing."""
        return () if self.mass is None else MASSES[self.mass]

    def grid(self, sites: Sequence[str]) -> MethodGrid | None:
        """The methods at these sites at their budgets; None where no method is named.

        Raises:
            UsageError: an unknown method, or no fraction.
        """
        if self.methods is None:
            return None
        from tokenprune.bench.benchmark import MethodGrid
        from tokenprune.bench.world_benchmark.methods import known_methods

        names = None if self.methods == "all" else tuple(dict.fromkeys(_listed(self.methods)))
        known = known_methods(sites)
        for name in names or ():
            if name not in known:
                raise UsageError(not_one_of("--methods", ["all", *known], name))
        fractions = tuple(dict.fromkeys(map(_fraction, _listed(BUDGETS if self.budgets is None else self.budgets))))
        return MethodGrid(names, fractions, self.masses or MASSES["both"])


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _fraction(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise UsageError(f"--budgets must be fractions in (0, 1], got {shown(text)}")
    return value
