# SPDX-License-Identifier: Apache-2.0
"""``tokenprune methods``: what is there to choose from; and everything about one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokenprune.cli._output import wrong_usage
from tokenprune.cli._tables import print_wide, text_table
from tokenprune.messages import site_named

if TYPE_CHECKING:
    from tokenprune.catalogue import Method, Parameter

COLUMNS = ("method", "acts", "reads", "budget", "paper", "licence of the original", "cost of a plan")
UNITS = (
    "N tokens of D components, T frames, K kept; H heads of d components (G that hold keys), R text rows, L keys; "
    "`tokenprune methods NAME` says everything about one"
)


def methods(
    name: Annotated[str | None, typer.Argument(help="Say everything about this one.", metavar="[NAME]")] = None,
) -> Listed | Page:
    """List the methods that are installed: where they act, what they read, their papers and licences."""
    from tokenprune import catalogue

    if name is None:
        return Listed(catalogue.methods())
    with wrong_usage():
        method = catalogue.method(name)
    return Page(method, [row for row in catalogue.methods() if row.variant and name in (row.name, row.title)])


@dataclass(frozen=True)
class Listed:
    """All methods, a row each."""

    found: Sequence[Method]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"methods": [each.to_dict() for each in self.found]}

    def render(self) -> None:
        """Print the table, and what its costs are counted in."""
        table = text_table(*COLUMNS)
        for each in self.found:
            budget = "exact" if each.has_budget else "its own"
            table.add_row(each.title, site_named(each.site), reads(each), budget, each.paper, each.licence, each.cost)
        print_wide([table, UNITS])


@dataclass(frozen=True)
class Page:
    """Everything about one method, and the forms it has under other parameters."""

    method: Method
    forms: Sequence[Method]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        more = {"parameters": [_to_dict(each) for each in self.method.parameters], "example": self.method.example}
        forms = [form.to_dict() for form in self.forms]
        return {**self.method.to_dict(), **more, "forms": forms, "text": self.method.text}

    def render(self) -> None:
        """Print its row, a line each, then its own words, parameters and example among them."""
        method = self.method
        print(f"{method.title}  {method.summary}\n")
        facts = {
            "acts": site_named(method.site),
            "reads": reads(method),
            "budget": "exact, by keep_ratio or keep" if method.has_budget else "its own",
            "paper": method.paper,
            "licence of the original": method.licence,
            "cost of a plan": method.cost,
        }
        for fact, value in facts.items():
            print(f"  {fact}: {value or '-'}")
        for form in self.forms:
            acts = site_named(form.site)
            print(f"  {form.variant}: {acts}, reads {reads(form)}; a variant, not the published method")
        print("\nparameters")
        for each in method.parameters:
            print(f"  {each.name}: {each.type} = {each.default!r}")
        print("\n" + method.text.split("\n\n", 1)[-1])


def reads(method: Method) -> str:
    """What it reads, in words."""
    own = "keys and values" if method.site == "after_prefill" else "features"
    return ", ".join(need.replace("_", " ") for need in method.needs) or own


def _to_dict(parameter: Parameter) -> dict[str, Any]:
    default = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
    plain = default is None or isinstance(default, (bool, int, float, str, list))
    return {"name": parameter.name, "type": parameter.type, "default": default if plain else repr(default)}
