# SPDX-License-Identifier: Apache-2.0
"""The table of methods: everything that is installed, what it reads, where it comes from.

Not called ``methods``: a module of that name would hide the function ``tokenprune.methods``.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from tokenprune.about import About
from tokenprune.errors import InvalidValueError, TokenPruneError
from tokenprune.messages import not_one_of
from tokenprune.operator import AFTER_LAYER, SITES, Operator, Schedule, site_of
from tokenprune.plugins import default_registry

DEPTH = 28
"""Layers of the decoder for which a schedule is asked what it reads."""
OF_THE_QUESTION = ("text", "attention", "relevance")
UNKNOWN = About("", "", "")


@dataclass(frozen=True)
class Parameter:
    """A parameter of a method: its name, its type as it is written, and its default (None where there is none).

    >>> method("UniformPrune").parameters[0]
    Parameter(name='layer', type='int | float', default=0.36)
    """

    name: str
    type: str
    default: Any


@dataclass(frozen=True)
class Method:
    """One row of :func:`methods`.

    >>> row = tp.methods()[0]
    >>> isinstance(row, Method), row.site in ("before_llm", "after_layer", "after_prefill")
    (True, True)

    Args:
        name: the class's.
        cls: the operator's class, or the schedule's.
        site: one of :data:`tokenprune.operator.SITES`.
        needs: the signals it reads beside the features (after the prefill: beside keys and values).
        has_budget: whether ``keep_ratio`` and ``keep`` name an exact number of tokens.
        variant: which parameters make it a form of its own, no longer the published method; empty: the method itself.
        paper: where it was published; empty where its class does not say.
        licence: of the authors' code, likewise.
        cost: of one plan, likewise; see :class:`tokenprune.about.About`.
        settings: the parameters that ``variant`` names.
    """

    name: str
    cls: type
    site: str
    needs: tuple[str, ...]
    has_budget: bool
    variant: str
    paper: str
    licence: str
    cost: str
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False, hash=False)

    @property
    def title(self) -> str:
        """The name; of a form of its own with what makes it one: ``DART(layer=None)``."""
        return f"{self.name}({self.variant})" if self.variant else self.name

    @property
    def reads_question(self) -> bool:
        """Whether its choice depends on the question, so that it serves no other one."""
        return any(need in OF_THE_QUESTION for need in self.needs)

    @property
    def summary(self) -> str:
        """What it does, in one line."""
        return _docstring(self.cls).split("\n\n", 1)[0].replace("\n", " ")

    @property
    def text(self) -> str:
        """The whole docstring."""
        return _docstring(self.cls)

    @property
    def example(self) -> str:
        """The docstring's example; empty where there is none."""
        lines = _docstring(self.cls).splitlines()
        start = next((i for i, line in enumerate(lines) if line.startswith(">>>")), len(lines))
        stop = next((i for i in range(start, len(lines)) if not lines[i]), len(lines))
        return "\n".join(lines[start:stop])

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """What it can be given, with the defaults of its own signature."""
        given = inspect.signature(self.cls).parameters
        types = {each.name: str(each.type) for each in fields(self.cls)}
        return tuple(
            Parameter(name, types.get(name, ""), None if each.default is inspect.Parameter.empty else each.default)
            for name, each in given.items()
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "name": self.name,
            "site": self.site,
            "needs": list(self.needs),
            "reads_question": self.reads_question,
            "has_budget": self.has_budget,
            "variant": self.variant,
            "paper": self.paper,
            "licence": self.licence,
            "cost": self.cost,
            "summary": self.summary,
        }


def methods() -> tuple[Method, ...]:
    """Every method that is installed or registered: where it acts, what it reads, its paper and its licence.

    >>> row = {method.name: method for method in tp.methods()}["SnapKV"]
    >>> row.site, row.needs, row.has_budget, row.paper
    ('after_prefill', ('attention',), True, 'arXiv 2404.14469')

    Returns:
        Rows in the order of a prefill, at each site by name; a form of a method stands where it acts.
    """
    found = [row for cls in default_registry().operators.values() if _is_method(cls) for row in _rows(cls)]
    return tuple(sorted(found, key=lambda row: (SITES.index(row.site), row.name, row.variant)))


def method(name: str) -> Method:
    """The method of this name, as published; under its title, a form of its own.

    >>> method("SnapKV").site, method("DART").site, method("DART(layer=None)").site
    ('after_prefill', 'after_layer', 'before_llm')

    Raises:
        InvalidValueError: there is none; the message lists the names.
    """
    rows = {row.title: row for row in methods()}
    if name not in rows:
        raise InvalidValueError(not_one_of("method", sorted(rows), name))
    return rows[name]


def _is_method(cls: type) -> bool:
    """Whether this is an operator or a schedule; scorers have a name in pipeline files, too."""
    return callable(getattr(cls, "plan", None)) or callable(getattr(cls, "operators", None))


def _rows(cls: type) -> Iterator[Method]:
    about = getattr(cls, "about", UNKNOWN)
    for settings in ({}, *about.variants):
        made = _made(cls, settings)
        names = {each.name for each in fields(cls)}
        yield Method(
            name=cls.__name__,
            cls=cls,
            site=AFTER_LAYER if isinstance(made, Schedule) else site_of(made),
            needs=_needs(made),
            has_budget={"keep_ratio", "keep"} <= names,
            variant=", ".join(f"{name}={value!r}" for name, value in settings.items()),
            paper=about.paper,
            licence=about.licence,
            cost=about.cost,
            settings=settings,
        )


def _made(cls: type, settings: Mapping[str, Any]) -> Operator | Schedule | type:
    """An operator of the class, with a budget if it wants one; the class, where it wants more than that."""
    for budget in ({}, {"keep_ratio": 0.5}):
        try:
            return cls(**{**settings, **budget})
        except (TokenPruneError, TypeError):
            continue
    return cls


def _needs(made: Operator | Schedule | type) -> tuple[str, ...]:
    if isinstance(made, Schedule) and not isinstance(made, type):
        return tuple(dict.fromkeys(need for each in made.operators(DEPTH) for need in _needs(each)))
    needs = getattr(made, "needs", ())
    return needs if isinstance(needs, tuple) else ()


def _docstring(cls: type) -> str:
    return inspect.cleandoc(cls.__doc__ or "")
