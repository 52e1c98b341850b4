# SPDX-License-Identifier: Apache-2.0
"""What an error message says of a value that a user gave: never more than a line of it, and what was meant perhaps."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any

LONGEST = 160
_LONGEST_NAME = 60
_BITS = 256


class _Short(reprlib.Repr):
    """Reads no more of a value than it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdict = self.maxdeque = 8
        self.maxstring = self.maxother = self.maxlong = 80

    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to write out what is very long."""
        return repr(x) if x.bit_length() <= _BITS else f"<an integer of {x.bit_length()} bits>"

    def repr_instance(self, x: Any, level: int) -> str:
        """A ``repr`` of a stranger's may raise anything."""
        try:
            text = repr(x)
        except Exception:
            return f"<a {type(x).__name__}>"
        return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


_short = _Short()


def shown(value: object) -> str:
    """``repr(value)``, cut to a line.

    >>> shown("0.8"), shown([1] * 1000)
    ("'0.8'", '[1, 1, 1, 1, 1, 1, 1, 1, ...]')
    """
    text = _short.repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def meant(given: object, known: Iterable[str]) -> str:
    """``; did you mean 'default'?`` where ``given`` is nearly one of the ``known`` names, else nothing.

    >>> meant("Defualt", ["default", "baseline"])
    "; did you mean 'default'?"
    """
    if not isinstance(given, str) or len(given) > _LONGEST_NAME:  # comparing takes the product of the lengths
        return ""
    by_folded = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(given.casefold(), by_folded, n=1)
    return f"; did you mean {by_folded[near[0]]!r}?" if near else ""


def site_named(site: str, layer: int | None = None) -> str:
    """Where an operator acts, in words.

    >>> site_named("before_llm"), site_named("after_layer", 3), site_named("after_layer")
    ('before the LLM', 'after layer 3', 'after a layer')
    """
    if site == "after_layer":
        return "after a layer" if layer is None else f"after layer {layer}"
    return {"before_llm": "before the LLM", "after_prefill": "after the prefill"}[site]


def not_one_of(what: str, known: Iterable[str], given: object) -> str:
    """``what must be one of a, b, got 'c'``, and which of them was meant perhaps."""
    names = list(known)
    return f"{what} must be one of {', '.join(names)}, got {shown(given)}{meant(given, names)}"
