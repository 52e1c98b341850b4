# SPDX-License-Identifier: Apache-2.0
"""What importing needs: nothing to begin with, torch for the core, never transformers."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import tokenprune as tp

BLOCK = """
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {blocked} else super().find_spec(name, path, target)

sys.meta_path = [Without if finder is PathFinder else finder for finder in sys.meta_path]
"""
EXTRAS = ("transformers", "accelerate", "torchvision", "av", "PIL", "peft", "matplotlib", "jinja2", "typer", "rich")
HUGGING_FACE = {"PrunableLayer", "PrunableDynamicCache", "PruneVidDynamicCache", "VLMPruner"}


def output(code: str, *blocked: str) -> str:
    """What a fresh interpreter prints in which the ``blocked`` packages are not installed."""
    script = BLOCK.format(blocked=blocked) + code
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_importing_the_package_imports_nothing_heavy() -> None:
    loaded = json.loads(output("import json, tokenprune; print(json.dumps(sorted(sys.modules)))"))
    assert not {"torch", "numpy", "transformers", "pluggy", "einops"} & set(loaded)


def test_the_core_works_without_transformers() -> None:
    code = f"""
import importlib, pkgutil, torch, tokenprune as tp
for name in set(tp.__all__) - {HUGGING_FACE!r}:
    assert getattr(tp, name) is not None, name
for module in pkgutil.walk_packages(tp.__path__, "tokenprune."):
    if module.name.split(".")[1] not in ("hf", "cli", "testing", "bench"):
        importlib.import_module(module.name)
OFFICES = ("benchmark", "multiple_choice", "egoschema.asking", "results", "runner", "speed.operators", "speed.request")
for name in OFFICES:
    importlib.import_module("tokenprune.bench." + name)
tokens = tp.VisualTokens(torch.randn(4 * 2 * 2, 8), grid=(4, 2, 2))
merged = tp.STMerge(tau=0.8).plan(tokens).apply(tokens)
assert sum(map(len, merged.sources)) == 16
assert tp.Pipeline.from_dict(tp.preset("default").to_dict()) == tp.preset("default")
assert "transformers" not in sys.modules
try:
    tp.PrunableDynamicCache
except ModuleNotFoundError as error:
    print(error.name)
"""
    assert output(code, *EXTRAS).strip() == "transformers"


def test_hugging_face_names_load_on_demand() -> None:
    pytest.importorskip("transformers")
    from transformers import DynamicCache

    assert issubclass(tp.PrunableDynamicCache, DynamicCache)
    assert tp.PruneVidDynamicCache is tp.PrunableDynamicCache
    assert tp.PrunableLayer.__module__ == "tokenprune.hf.layer"


def test_the_adapters_entry_module_is_light() -> None:
    code = """
import tokenprune_qwen25vl.plugin
print(sorted({"transformers", "accelerate", "torchvision", "av", "PIL"} & set(sys.modules)))
"""
    assert output(code).strip() == "[]"


def test_loading_plugins_and_pipeline_files_imports_no_models_library() -> None:
    pytest.importorskip("transformers")
    code = """
import tokenprune as tp
from tokenprune.bench.offers import offers
tp.Pipeline.from_dict(tp.preset("default").to_dict())
assert [info.status for info in tp.list_plugins() if info.name == "qwen25vl"] == ["ok"]
assert [plugin.info.name for plugin, _ in offers("tokenprune_speed", [])] == ["qwen25vl", "transformers"]
print(sorted({"transformers", "accelerate", "torchvision", "av", "PIL"} & set(sys.modules)))
"""
    assert output(code).strip() == "[]"


def test_without_its_extra_the_adapter_is_not_installed_rather_than_broken() -> None:
    code = """
import torch, tokenprune as tp
from tokenprune.plugins import find_adapter
adapter = next(plugin for plugin in tp.list_plugins() if plugin.name == "qwen25vl")
print(adapter.status, adapter.reason, sep=": ")
try:
    find_adapter(torch.nn.Linear(1, 1))
except tp.NoAdapterError as error:
    print(error)
"""
    listed, error = output(code, *EXTRAS).splitlines()
    assert listed.startswith("not installed: ")
    assert 'pip install "tokenprune-vlm[qwen25vl]"' in listed
    assert 'pip install "tokenprune-vlm[qwen25vl]"' in error


def test_the_public_names_agree() -> None:
    """The table for run time and the imports for type checkers say the same."""
    source = Path(tp.__file__).read_text(encoding="utf-8")
    (guard,) = [node for node in ast.parse(source).body if isinstance(node, ast.If)]
    imported = {
        alias.asname: f"{node.module}"
        for node in guard.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == tp._HOME
    assert sorted(tp.__all__) == sorted([*imported, "__version__"])
    assert set(tp.__all__) <= set(dir(tp))


def test_public_functions_are_not_hidden_by_modules_of_the_same_name() -> None:
    folder = Path(tp.__file__).parent
    modules = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert not modules & set(tp.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'tokenprune' has no attribute 'Nope'"):
        tp.Nope  # type: ignore[attr-defined]  # noqa: B018


def test_the_version_is_the_distributions() -> None:
    from importlib.metadata import version

    assert tp.__version__ == version("tokenprune-vlm")


@pytest.mark.parametrize("package", ["tokenprune", "tokenprune_qwen25vl"])
def test_packages_are_typed(package: str) -> None:
    assert (Path(tp.__file__).parents[1] / package / "py.typed").is_file()
