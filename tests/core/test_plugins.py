# SPDX-License-Identifier: Apache-2.0
"""Plugins, really installed: the good ones work, the broken ones are named and hide nothing."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import textwrap
import threading
import time
import warnings
import zipfile
from collections.abc import Callable
from importlib.metadata import EntryPoint, distributions
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

import tokenprune as tp
from tokenprune import hookspecs, plugins
from tokenprune.errors import (
    AmbiguousAdapterError,
    MissingHookError,
    NoAdapterError,
    PipelineFileError,
    TokenPruneError,
    TokenPruneWarning,
)
from tokenprune.loading import Plugin, PluginGroup, PluginInfo
from tokenprune.plugins import PluginRegistry
from tokenprune.registry import REGISTERED

ADAPTER = """
    from torch import nn
    import tokenprune as tp

    class Adapter:
        name = "linear"

        def accepts(self, model):
            return tp.Accepted(depth=7) if isinstance(model, nn.Linear) else tp.Declined("only Linear is mine")

        def boundaries(self, model, prompt):
            return [[model, prompt]]

        def attention(self, model, layer):
            return (model, layer)

        def port(self, model):
            return None

    @tp.hookimpl
    def tokenprune_model_adapters():
        return [Adapter()]
"""
ANSWER = 'return tp.Accepted(depth=7) if isinstance(model, nn.Linear) else tp.Declined("only Linear is mine")'
OF_0_1 = """
    import tokenprune as tp

    @tp.hookimpl
    def tokenprune_requirements():
        return None

    @tp.hookimpl
    def tokenprune_adapter(model):
        return tp.Accepted(depth=7)

    @tp.hookimpl
    def tokenprune_cache_layers(model, cache):
        return cache
"""
PACKAGES = {
    "good": ADAPTER.replace('"linear"', '"good"')
    + """
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Everything:
        times: int = 1

        def plan(self, tokens):
            return tp.TokenPlan.identity(len(tokens))

    @tp.hookimpl
    def tokenprune_operators():
        return {"Everything": Everything}
    """,
    "twin": ADAPTER,
    "crash": "import a_module_that_nobody_has",
    "quitter": "import sys; sys.exit(3)",
    "misspelled": ADAPTER.replace("tokenprune_model_adapters", "tokenprune_model_adapter"),
    "unmarked": ADAPTER.replace("@tp.hookimpl", ""),
    "wrongargs": ADAPTER.replace("tokenprune_model_adapters()", "tokenprune_model_adapters(net)"),
    "halfway": ADAPTER.replace("def boundaries", "def edges").replace("def port", "def harbour"),
    "old": OF_0_1,
    "both": OF_0_1 + ADAPTER,
    "misplaced": ADAPTER
    + """
    @tp.hookimpl
    def tokenprune_runner():
        return None
    """,
    "raising": ADAPTER.replace(ANSWER, 'raise RuntimeError("my\\nbad day")'),
    "nonsense": ADAPTER.replace(ANSWER, "return True"),
    "wanting": ADAPTER
    + """
    @tp.hookimpl
    def tokenprune_requirements():
        return "needs gold: pip install gold"
    """,
    "thief": ADAPTER
    + """
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class STMerge:
        pass

    @tp.hookimpl
    def tokenprune_operators():
        return {"STMerge": STMerge}
    """,
}
STATUS = {
    "good": ("ok", ""),
    "twin": ("ok", ""),
    "crash": ("failed", "ModuleNotFoundError: No module named 'a_module_that_nobody_has'"),
    "quitter": ("failed", "SystemExit: 3"),
    "misspelled": (
        "failed",
        "unknown hook 'tokenprune_model_adapter'; known are tokenprune_model_adapters, tokenprune_op",
    ),
    "halfway": ("failed", "the model adapter Adapter has no boundaries, port"),
    "old": (
        "failed",
        "written for tokenprune 0.1, which had the hooks tokenprune_adapter, tokenprune_cache_layers;",
    ),
    "both": ("ok", ""),
    "misplaced": ("failed", "written for tokenprune 0.1, which had the hooks tokenprune_runner; docs/guides/hooks.md"),
    "unmarked": ("failed", "tokenprune_model_adapters is named like a hook but not marked with @tokenprune.hookimpl"),
    "wrongargs": ("failed", "net"),
    "raising": ("ok", ""),
    "nonsense": ("ok", ""),
    "wanting": ("not installed", "needs gold: pip install gold"),
    "thief": ("failed", "operator STMerge is already offered by plugin builtin"),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory into which all of these packages are installed by pip."""
    root = tmp_path_factory.mktemp("packages")
    wheels = [str(wheel(root, name, source)) for name, source in PACKAGES.items()]
    options = ["--quiet", "--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check"]
    target = root / "site"
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", str(target), *wheels], check=True)
    return target


def wheel(folder: Path, name: str, source: str) -> Path:
    """The wheel of a distribution with one module and one entry point."""
    info = f"strange_{name}-1.2.3.dist-info"
    files = {
        f"strange_{name}.py": textwrap.dedent(source),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: strange-{name}\nVersion: 1.2.3\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[tokenprune]\n{name} = strange_{name}\n",
    }
    path = folder / f"strange_{name}-1.2.3-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, content in files.items():
            archive.writestr(file, content)
        archive.writestr(f"{info}/RECORD", "".join(f"{file},,\n" for file in (*files, f"{info}/RECORD")))
    return path


@pytest.fixture
def registry(site: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., PluginRegistry]:
    """Makes a registry of the installed packages of these names."""
    monkeypatch.syspath_prepend(str(site))
    points = [point for dist in distributions(path=[str(site)]) for point in dist.entry_points]
    return lambda *names: PluginRegistry.load(points, only=names or None)


def test_every_plugin_is_listed_with_its_fate(registry: Callable[..., PluginRegistry]) -> None:
    listed = registry().list_plugins()
    assert [info.name for info in listed] == ["builtin", *sorted(PACKAGES)]
    for info in listed[1:]:
        status, reason = STATUS[info.name]
        assert (info.status, info.distribution, info.version) == (status, f"strange-{info.name}", "1.2.3")
        assert reason in info.reason
        assert "\n" not in info.reason
        assert bool(info.reason) == (info.status != "ok")
    good = next(info for info in listed if info.name == "good")
    assert good.hooks == ("tokenprune_model_adapters", "tokenprune_operators")


def test_the_built_in_operators_are_a_plugin_that_works() -> None:
    (builtin,) = PluginRegistry.load(only=[]).list_plugins()
    assert (builtin.name, builtin.status, builtin.reason) == ("builtin", "ok", "")
    assert plugins.operator_class("STMerge") is tp.STMerge


def test_a_strangers_operator_can_be_named_beside_broken_plugins(registry: Callable[..., PluginRegistry]) -> None:
    everything = registry().operator_class("Everything")
    assert dataclasses.is_dataclass(everything)
    assert registry().operator_class("STMerge") is tp.STMerge


def test_an_unknown_operator_lists_the_known_and_the_broken(registry: Callable[..., PluginRegistry]) -> None:
    with pytest.raises(PipelineFileError, match=r"unknown operator 'Nope'; known are AttnPrune.*Everything") as error:
        registry("good", "crash").operator_class("Nope")
    assert "plugin crash (failed): ModuleNotFoundError" in str(error.value)


def test_the_accepting_adapter_is_found_and_bound(registry: Callable[..., PluginRegistry]) -> None:
    model = nn.Linear(1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found: Any = registry("good", "raising", "nonsense", "wanting").find_adapter(model)
    assert (found.name, found.depth, found.model) == ("good", 7, model)
    assert found.boundaries("prompt") == [[model, "prompt"]]
    assert found.attention(3) == (model, 3)
    with pytest.raises(MissingHookError, match="port of adapter good returned nothing"):
        found.port()


def test_hooks_of_0_1_beside_the_new_one_are_passed_over(registry: Callable[..., PluginRegistry]) -> None:
    found = registry("both")
    assert found.find_adapter(nn.Linear(1, 1)).depth == 7
    assert found.list_plugins()[1].hooks == ("tokenprune_model_adapters", "tokenprune_requirements")


def test_one_manager_holds_what_can_be_used() -> None:
    group = PluginGroup(hookspecs)
    good = hooks(tokenprune_operators=lambda: {"Frozen": Frozen})
    bad = hooks(tokenprune_operators=lambda: {"Thawed": Thawed}, tokenprune_requirements=lambda: 1 / 0)
    wanting = hooks(tokenprune_operators=lambda: {"Thawed": Thawed}, tokenprune_requirements=lambda: "gold")
    for name, plugin in {"a": bad, "b": good, "c": wanting, "d": good}.items():
        group.add(PluginInfo(name), lambda plugin=plugin: plugin)
    assert group.manager.hook.tokenprune_operators() == [{"Frozen": Frozen}]
    assert group.manager.hook.tokenprune_requirements() == []


def test_a_broken_neighbour_is_warned_of_once(registry: Callable[..., PluginRegistry]) -> None:
    found = registry("good", "crash", "quitter")
    with pytest.warns(TokenPruneWarning, match="could not be loaded: crash, quitter; `tokenprune plugins` says why"):
        assert found.find_adapter(nn.Linear(1, 1)).name == "good"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert found.find_adapter(nn.Linear(1, 1)).name == "good"


def test_no_adapter_says_why_each_declined(registry: Callable[..., PluginRegistry]) -> None:
    with pytest.raises(NoAdapterError) as error:
        registry().find_adapter(nn.ReLU())
    message = str(error.value)
    assert message.startswith("no adapter accepts ReLU: ")
    for reason in (
        "good: only Linear is mine",
        "raising/linear: its adapter raised RuntimeError: my bad day",
        "nonsense/linear: its adapter returned True",
        "plugin wanting (not installed): needs gold: pip install gold",
        "plugin crash (failed): ModuleNotFoundError",
    ):
        assert reason in message
    assert isinstance(error.value.__cause__, RuntimeError)


def test_no_adapter_at_all() -> None:
    with pytest.raises(NoAdapterError, match="no adapter accepts ReLU: none is installed"):
        PluginRegistry.load(only=[]).find_adapter(nn.ReLU())


def test_several_accepting_adapters_are_an_error(registry: Callable[..., PluginRegistry]) -> None:
    with pytest.raises(
        AmbiguousAdapterError, match="several adapters accept Linear: good, twin/linear; set TOKENPRUNE_PLUGINS"
    ):
        registry("good", "twin").find_adapter(nn.Linear(1, 1))


def test_a_name_that_is_not_installed_is_listed_as_failed(registry: Callable[..., PluginRegistry]) -> None:
    ghost = registry("good", "ghost").list_plugins()[1]
    assert (ghost.name, ghost.status) == ("ghost", "failed")
    assert "TOKENPRUNE_PLUGINS names it" in ghost.reason


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        ("", ["builtin"]),
        (" , ", ["builtin"]),
        ("good", ["builtin", "good"]),
        (" twin, crash ", ["builtin", "crash", "twin"]),
    ],
)
def test_the_environment_chooses_plugins(
    site: Path, monkeypatch: pytest.MonkeyPatch, chosen: str, names: list[str]
) -> None:
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("TOKENPRUNE_PLUGINS", chosen)
    monkeypatch.setattr(plugins, "_default", None)
    assert [info.name for info in tp.list_plugins()] == names
    monkeypatch.delenv("TOKENPRUNE_PLUGINS")
    assert [info.name for info in tp.list_plugins()] == names  # read once
    plugins.reset_plugins()
    assert [info.name for info in tp.list_plugins()] == ["builtin", *sorted([*PACKAGES, "families", "qwen25vl"])]


SCRIPT = """
import torch, tokenprune as tp
from tokenprune.plugins import find_adapter, operator_class
print(find_adapter(torch.nn.Linear(1, 1)).name, operator_class("Everything").__module__)
"""


def test_a_fresh_interpreter_finds_what_is_installed(site: Path) -> None:
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "TOKENPRUNE_PLUGINS": "crash,good,misspelled,raising"}
    run = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == "good strange_good\n"
    assert run.stderr.count("TokenPruneWarning") == 1
    assert "these plugins could not be loaded: crash, misspelled" in run.stderr


def test_threads_load_the_plugins_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[PluginRegistry] = []

    def slow_load(**_: object) -> PluginRegistry:
        time.sleep(0.05)
        loaded.append(PluginRegistry(()))
        return loaded[-1]

    monkeypatch.setattr(PluginRegistry, "load", slow_load)
    monkeypatch.setattr(plugins, "_default", None)
    threads = [threading.Thread(target=plugins.default_registry) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded) == 1
    plugins.reset_plugins()
    assert plugins.default_registry() is loaded[1]


def hooks(**implementations: Any) -> SimpleNamespace:
    return SimpleNamespace(**{name: tp.hookimpl(function) for name, function in implementations.items()})


@dataclasses.dataclass
class Thawed:
    pass


@dataclasses.dataclass(frozen=True)
class Frozen:
    pass


class Hooks:
    @tp.hookimpl
    def tokenprune_requirements(self) -> None:
        return None


@pytest.mark.parametrize(
    ("plugin", "reason"),
    [
        (Hooks, "must name a module or an object, got the class Hooks"),
        (SimpleNamespace(), "it has no function marked with @tokenprune.hookimpl"),
        (hooks(tokenprune_requirements=lambda: ["x"]), "must return a string or None, got list"),
        (hooks(tokenprune_requirements=lambda: 1 / 0), "ZeroDivisionError: division by zero"),
        (hooks(tokenprune_operators=lambda: [Frozen]), "must return a mapping, got list"),
        (hooks(tokenprune_operators=lambda: {"Other": Frozen}), "must be a class under its own name, got 'Other'"),
        (hooks(tokenprune_operators=lambda: {"Frozen": Frozen()}), "must be a class under its own name, got 'Frozen'"),
        (hooks(tokenprune_operators=lambda: {"Thawed": Thawed}), "operator Thawed must be a frozen dataclass"),
        (hooks(tokenprune_model_adapters=lambda: Frozen()), "must return a sequence, got Frozen"),
        (hooks(tokenprune_model_adapters=lambda: [Frozen]), "must be an object, got the class Frozen"),
        (hooks(tokenprune_model_adapters=lambda: [Frozen()]), "has no accepts, boundaries, attention, port, name"),
    ],
)
def test_what_is_wrong_with_a_plugin_is_named(monkeypatch: pytest.MonkeyPatch, plugin: object, reason: str) -> None:
    found = loaded(monkeypatch, plugin)
    assert found.info.status == "failed"
    assert reason in found.info.reason
    assert not found.hooks
    assert not found.operators


def loaded(monkeypatch: pytest.MonkeyPatch, plugin: object) -> Plugin:
    """The plugin as a registry has it, behind an entry point."""
    monkeypatch.setitem(sys.modules, "a_plugin", SimpleNamespace(it=plugin))
    return PluginRegistry.load([EntryPoint("x", "a_plugin:it", "tokenprune")]).plugins[1]


def test_an_object_with_methods_is_a_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    found = loaded(monkeypatch, Hooks())
    assert (found.info.status, found.info.hooks) == ("ok", ("tokenprune_requirements",))


def test_a_plugin_that_is_not_ok_is_never_called(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    wanting = hooks(tokenprune_requirements=lambda: "gold", tokenprune_operators=lambda: calls.append(1))
    found = loaded(monkeypatch, wanting)
    assert found.info.status == "not installed"
    assert found.call("tokenprune_operators") is None
    assert not calls


def test_a_registered_class_can_be_named_in_pipeline_files() -> None:
    @tp.register
    @dataclasses.dataclass(frozen=True)
    class Third:
        every: int = 3

        def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
            return tp.TokenPlan.identity(len(tokens))

    pipeline = tp.Pipeline([Third(every=5)])
    assert tp.Pipeline.from_dict(pipeline.to_dict()) == pipeline
    plugins.reset_plugins()
    assert tp.Pipeline.from_dict(pipeline.to_dict()) == pipeline  # an installed plugin is looked for anew, this is not
    with pytest.raises(PipelineFileError, match=r"known are .*Third.*; did you mean 'Third'"):
        plugins.operator_class("Thirt")
    with pytest.raises(tp.InvalidValueError, match=r"the name Third is taken, by .*test_plugins; choose another"):
        tp.register(Third)
    again = type("Third", (Third,), {})
    again = dataclasses.dataclass(frozen=True)(again)
    assert tp.register(again, replace=True) is again is plugins.operator_class("Third")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (Thawed, "operator Thawed must be a frozen dataclass"),
        (Frozen(), "must be a class under its own name"),
        (None, "must be a class under its own name"),
        (dataclasses.make_dataclass("STMerge", [], frozen=True), "the name STMerge is taken, by tokenprune.operators."),
    ],
)
def test_what_cannot_be_registered(given: Any, reason: str) -> None:
    before = dict(REGISTERED)
    with pytest.raises(tp.InvalidValueError, match=reason):
        tp.register(given)
    assert before == REGISTERED


def test_two_entry_points_of_one_name_are_both_listed() -> None:
    points = [EntryPoint("same", f"nowhere_{letter}", "tokenprune") for letter in "ba"]
    listed = PluginRegistry.load(points).list_plugins()
    assert [info.name for info in listed] == ["builtin", "same", "same"]
    assert [info.reason[-11:] for info in listed[1:]] == ["'nowhere_a'", "'nowhere_b'"]


def test_errors_are_of_one_family() -> None:
    assert issubclass(AmbiguousAdapterError, TokenPruneError)
    assert Plugin(PluginInfo("x")).call("tokenprune_operators") is None
