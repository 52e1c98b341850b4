# SPDX-License-Identifier: Apache-2.0
"""A package whose names are loaded when they are first used, so that importing it imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def homes(package: str, public: Mapping[str, str]) -> dict[str, str]:
    """The module of each public name.

    >>> homes("tokenprune", {"hf.cache": "make_prunable PrunableDynamicCache"})
    {'make_prunable': 'tokenprune.hf.cache', 'PrunableDynamicCache': 'tokenprune.hf.cache'}

    Args:
        package: its name.
        public: modules, counted from the package -> their public names, with spaces between.
    """
    return {name: f"{package}.{module}" for module, names in public.items() for name in names.split()}


def loaded_on_use(
    package: dict[str, Any], home: Mapping[str, str]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """The ``__getattr__`` and ``__dir__`` of a package (PEP 562).

    Args:
        package: its ``globals()``, into which names are put as they are used.
        home: from :func:`homes`.
    """

    def load(name: str) -> object:
        if name not in home:
            raise AttributeError(f"module {package['__name__']!r} has no attribute {name!r}")
        value = getattr(import_module(home[name]), name)
        package[name] = value
        return value

    return load, lambda: sorted({*package, *home})
