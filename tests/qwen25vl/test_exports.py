# SPDX-License-Identifier: Apache-2.0
"""The package's own names: all there, the same for type checkers, and nothing heavy until they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import tokenprune_qwen25vl as package


def test_importing_the_package_and_its_plugin_imports_nothing_heavy() -> None:
    code = (
        "import sys, tokenprune_qwen25vl, tokenprune_qwen25vl.plugin; "
        "print(sorted({'transformers', 'torchvision', 'av', 'PIL', 'accelerate'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def test_every_name_resolves() -> None:
    pytest.importorskip("transformers")
    for name in package.__all__:
        value = getattr(package, name)
        assert value is getattr(import_module(package._HOME[name]), name)
        assert value.__module__.startswith(("tokenprune_qwen25vl.", "tokenprune.hf.frontend."))
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(package.__file__).read_text(encoding="utf-8"))
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert seen == package._HOME
