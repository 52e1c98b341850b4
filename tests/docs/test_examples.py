# SPDX-License-Identifier: Apache-2.0
"""The examples in docstrings do what they show, and every public name has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from functools import lru_cache
from pathlib import Path
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
        *("tokenprune.catalogue", "tokenprune.signals", "tokenprune.history", "tokenprune.bench.multiple_choice"),
    ),
    *("tokenprune.testing", "tokenprune.hf", "tokenprune_qwen25vl"),
)
NO_EXAMPLE = {
    # What an adapter or a front end writes: tokenprune.hf and tokenprune.bench have classes, and they have examples.
    *("AttentionReader", "ModelPort", "ModelAdapter", "Removable", "PrunableCache", "Family"),
    *("Benchmark", "SpeedBench", "VideoModel", "VideoRunner"),
    "Planned",  # VisualTokens is the example
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
    """Classes and functions of the public modules, and those in docs/api; errors say by their names when they come."""
    found: dict[str, Any] = {}
    for name in PUBLIC:
        module = importlib.import_module(name)
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", None) == name]
        for key in getattr(module, "__all__", [each for each in own if not each.startswith("_")]):
            found[f"{name}.{key}"] = getattr(module, key)
    for page in (Path(__file__).parents[2] / "docs" / "api").glob("*.md"):
        for name in re.findall(r"^::: (\S+)\.(\w+)$", page.read_text(encoding="utf-8"), re.MULTILINE):
            found[".".join(name)] = getattr(importlib.import_module(name[0]), name[1])
    unique = {id(value): (name, value) for name, value in found.items() if _wants_example(value)}
    return sorted(unique.values(), key=lambda each: each[0])


def _wants_example(value: object) -> bool:
    is_error = inspect.isclass(value) and issubclass(value, Exception)
    return (inspect.isclass(value) or inspect.isfunction(value)) and not is_error


NAMES = public_names()


@pytest.mark.parametrize(("name", "value"), NAMES, ids=[name for name, _ in NAMES])
def test_a_public_name_has_an_example(name: str, value: Any) -> None:
    if value.__name__ not in NO_EXAMPLE:
        assert ">>> " in (value.__doc__ or "")


def test_what_has_no_example_is_public() -> None:
    assert NO_EXAMPLE <= {value.__name__ for _, value in NAMES}
