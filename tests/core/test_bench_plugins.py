# SPDX-License-Identifier: Apache-2.0
"""The plugins that run and measure models: a group of their own, chosen by the same names."""

from __future__ import annotations

import sys
import types
from importlib.metadata import EntryPoint
from typing import Any

import pytest

import tokenprune as tp
from tokenprune import registry
from tokenprune.bench.offers import bench_plugins, offers
from tokenprune.loading import BENCH_GROUP
from tokenprune.plugins import PluginRegistry


def points(**modules: dict[str, Any]) -> list[EntryPoint]:
    """Entry points to modules that have these hooks."""
    for name, hooks in modules.items():
        module = types.ModuleType(f"bench_of_{name}")
        vars(module).update({hook: tp.hookimpl(function) for hook, function in hooks.items()})
        sys.modules[module.__name__] = module
    return [EntryPoint(name, f"bench_of_{name}", BENCH_GROUP) for name in modules]


def answer() -> str:
    return "a runner"


def test_each_answers_and_the_unusable_give_their_reason() -> None:
    def requirements() -> str:
        return "pip install gold"

    def operators() -> dict[str, type]:
        return {}

    found = bench_plugins(
        points(
            b={"tokenprune_runner": answer},
            a={"tokenprune_requirements": requirements},
            c={"tokenprune_operators": operators},
        )
    )
    reasons: list[str] = []
    offered = [(plugin.info.name, offer) for plugin, offer in offers("tokenprune_runner", reasons, found)]
    assert offered == [("b", "a runner")]
    assert reasons[0] == "a (not installed): pip install gold"
    assert reasons[1].startswith("c (failed): unknown hook 'tokenprune_operators'; known are tokenprune_benchmarks, ")
    assert list(offers("tokenprune_speed", [], found)) == []


def test_ours_is_installed() -> None:
    [ours] = [plugin.info for plugin in bench_plugins() if plugin.info.name == "qwen25vl"]
    assert {"tokenprune_benchmarks", "tokenprune_runner", "tokenprune_speed"} <= set(ours.hooks)
    assert ours.distribution == "tokenprune-vlm"


def test_the_environment_chooses_among_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENPRUNE_PLUGINS", "one")
    found = bench_plugins(points(one={"tokenprune_runner": answer}, two={"tokenprune_runner": answer}))
    assert [plugin.info.name for plugin in found] == ["one"]


def test_a_name_of_that_group_alone_is_no_missing_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = points(one={})
    monkeypatch.setattr(registry, "entry_points", lambda group: installed if group == BENCH_GROUP else [])
    listed = PluginRegistry.load(only=["one", "ghost"]).list_plugins()
    assert [(info.name, info.status) for info in listed] == [("builtin", "ok"), ("ghost", "failed")]
