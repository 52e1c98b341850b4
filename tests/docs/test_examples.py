# SPDX-License-Identifier: Apache-2.0
"""The examples in docstrings do what they show."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from typing import Any

import pytest
import torch

import tokenprune as tp


def examples() -> list[doctest.DocTest]:
    """Every docstring of the package that holds an example."""
    found: list[doctest.DocTest] = []
    for module in pkgutil.walk_packages(tp.__path__, "tokenprune."):
        if "__main__" in module.name:
            continue
        names: dict[str, Any] = {"tp": tp, "torch": torch}
        finder = doctest.DocTestFinder(exclude_empty=True)
        loaded = importlib.import_module(module.name)
        found += [test for test in finder.find(loaded, extraglobs=names) if test.examples]
    return found


EXAMPLES = examples()


@pytest.mark.parametrize("example", EXAMPLES, ids=[test.name for test in EXAMPLES])
def test_an_example_does_what_it_shows(example: doctest.DocTest) -> None:
    torch.manual_seed(0)
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).run(example)
    assert result.failed == 0
