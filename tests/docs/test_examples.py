# SPDX-License-Identifier: Apache-2.0
"""The examples in docstrings do what they show, and every public name has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from functools import lru_cache
from typing import Any

import pytest
import torch

import tokenprune as tp
import tokenprune_qwen25vl

PUBLIC = (
    *("tokenprune", "tokenprune.adapter", "tokenprune.operator", "tokenprune.plan", "tokenprune.tokens"),
    *(
        "tokenprune.scorers",
        "tokenprune.budget",
        "tokenprune.named",
        "tokenprune.attention_view",
        "tokenprune.catalogue",
    ),
    *("tokenprune.testing", "tokenprune.hf", "tokenprune_qwen25vl"),
)
NO_EXAMPLE = {
    # What an adapter or a front end writes: tokenprune.hf has the classes, and they have examples.
    *("AttentionReader", "ModelPort", "ModelAdapter", "Removable", "PrunableCache"),
    "Planned",  # VisualTokens is the example
    "hookimpl",  # pluggy's
}


def examples() -> list[doctest.DocTest]:
    """Every docstring of the package that holds an example."""
    found: list[doctest.DocTest] = []
    modules = [
        *pkgutil.walk_packages(tp.__path__, "tokenprune."),
        *pkgutil.walk_packages(tokenprune_qwen25vl.__path__, "tokenprune_qwen25vl."),
    ]
    for module in modules:
        if "__main__" in module.name or ".lmms" in module.name:  # the latter needs lmms-eval
            continue
        names: dict[str, Any] = {"tp": tp, "torch": torch}
        finder = doctest.DocTestFinder(exclude_empty=True)
        loaded = importlib.import_module(module.name)
        found += [test for test in finder.find(loaded, extraglobs=names) if test.examples]
    return found


@lru_cache
def a_model_and_inputs() -> dict[str, Any]:
    """What a reader of a short example has at hand: README shows how to get there."""
    qwen: Any = tokenprune_qwen25vl
    model, processor = qwen.load(device="cpu")
    asked = qwen.Conversation("Which way does the red circle move?", (qwen.load_clip(qwen.demo_clip()),))
    return {"model": model, "processor": processor, "inputs": qwen.model_inputs(processor, [asked])}


EXAMPLES = examples()


@pytest.mark.parametrize("example", EXAMPLES, ids=[test.name for test in EXAMPLES])
def test_an_example_does_what_it_shows(example: doctest.DocTest) -> None:
    if any(re.search(r"\b(model|processor)\b", part.source) for part in example.examples):
        example.globs.update(a_model_and_inputs())
    torch.manual_seed(0)
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).run(example)
    assert result.failed == 0


def public_names() -> list[tuple[str, Any]]:
    """Public classes and functions, errors left out: their names say when they are raised."""
    found: dict[str, Any] = {}
    for name in PUBLIC:
        module = importlib.import_module(name)
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == name]
        for key in getattr(module, "__all__", [each for each in own if not each.startswith("_")]):
            value = getattr(module, key)
            is_error = inspect.isclass(value) and issubclass(value, Exception)
            if (inspect.isclass(value) or inspect.isfunction(value)) and not is_error:
                found[f"{value.__module__}.{value.__name__}"] = value
    return list(found.items())


NAMES = public_names()


@pytest.mark.parametrize(("name", "value"), NAMES, ids=[name for name, _ in NAMES])
def test_a_public_name_has_an_example(name: str, value: Any) -> None:
    if name.rpartition(".")[2] not in NO_EXAMPLE:
        assert ">>> " in (value.__doc__ or "")


def test_what_has_no_example_is_public() -> None:
    known = {name.rpartition(".")[2] for name, _ in NAMES}
    assert NO_EXAMPLE <= known | {"hookimpl"}
