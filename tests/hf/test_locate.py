# SPDX-License-Identifier: Apache-2.0
"""A model's parts are found once, and found again quickly."""

from __future__ import annotations

import gc
import weakref

import pytest
from torch import nn

pytest.importorskip("transformers")

from tokenprune.hf import known_module, only_module


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), nn.LayerNorm(2)))


def test_the_only_one_is_found_anywhere() -> None:
    found = model()
    assert only_module(found, nn.LayerNorm) is found[1][1]
    assert only_module(found, nn.Sequential) is None  # two
    assert only_module(found, nn.Conv1d) is None
    assert only_module(found[0], nn.Linear) is found[0]


def test_what_is_known_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    found = model()
    assert only_module(found, nn.LayerNorm) is known_module(found, nn.LayerNorm)

    def refuse(self: nn.Module, *args: object) -> None:
        raise AssertionError("all modules were walked through")

    monkeypatch.setattr(nn.Module, "named_modules", refuse)
    assert known_module(found, nn.LayerNorm) is found[1][1]


def test_what_is_elsewhere_now_is_looked_for() -> None:
    found = model()
    norm = only_module(found, nn.LayerNorm)
    found[1][1] = nn.Identity()
    assert known_module(found, nn.LayerNorm) is None
    found.append(norm)
    assert known_module(found, nn.LayerNorm) is norm
    moved = nn.Sequential(found)
    assert known_module(moved, nn.LayerNorm) is norm
    found[1] = nn.Identity()
    del found[2]
    assert known_module(moved, nn.LayerNorm) is None


def test_nothing_keeps_a_model_alive() -> None:
    found = model()
    only_module(found, nn.LayerNorm)
    gone = weakref.ref(found)
    del found
    gc.collect()
    assert gone() is None
