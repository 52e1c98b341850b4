# SPDX-License-Identifier: Apache-2.0
"""What errors say of users' values: a line at most, whatever they hold."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

import tokenprune as tp
from tokenprune.layers import resolve_layer
from tokenprune.messages import LONGEST, meant, not_one_of, shown


class Unwilling:
    def __repr__(self) -> str:
        raise ZeroDivisionError


HUGE = 10**5000  # Python refuses to write it out


@pytest.mark.parametrize("value", ["0.8", 7, -(2**200), 1.5, None, True, ("video",), {"a": [1]}, float("nan")], ids=str)
def test_short_values_are_shown_as_they_are(value: Any) -> None:
    assert shown(value) == repr(value)


@pytest.mark.parametrize(
    "value",
    [HUGE, "x" * 10**7, [HUGE] * 1000, {f"{i}": "y" * 999 for i in range(999)}, Unwilling(), b"z" * 10**6, range(9)],
    ids=["int", "str", "list", "dict", "no repr", "bytes", "range"],
)
def test_long_values_are_cut(value: Any) -> None:
    assert len(shown(value)) <= LONGEST
    assert "\n" not in shown(value)


def test_what_holds_itself_is_cut() -> None:
    ring: list[Any] = []
    ring.append(ring)
    assert len(shown(ring)) <= LONGEST


@pytest.mark.parametrize("name", ["defualt", "DEFAULT", "Default", "defalt"])
def test_what_was_meant(name: str) -> None:
    assert meant(name, ["default", "baseline"]) == "; did you mean 'default'?"


@pytest.mark.parametrize("name", ["", "custom", 3, None, "default" * 10**6, "\ud800"])
def test_what_nobody_can_guess(name: Any) -> None:
    start = time.monotonic()
    assert meant(name, ["default", "baseline"]) == ""
    assert time.monotonic() - start < 1


def test_one_of_several() -> None:
    assert not_one_of("shape", ["a", "b"], "c") == "shape must be one of a, b, got 'c'"


@pytest.mark.parametrize(
    "call",
    [
        lambda: tp.STMerge(tau=HUGE),
        lambda: tp.STMerge(neighbours=-HUGE),
        lambda: tp.Budget(keep=-HUGE),
        lambda: tp.UniformSelect(keep_ratio=HUGE),
        lambda: tp.RandomSelect(keep=1, seed=HUGE),
        lambda: tp.AttnPrune(layer=-HUGE, keep=1),
        lambda: tp.AttnPrune(keep=1, scorer="s" * 10**6),
        lambda: tp.AttnPrune(keep=1, select="s" * 10**6),
        lambda: tp.AttnPrune(keep=1, modalities=("m" * 10**6,)),
        lambda: tp.RopeCausalScore(head_reduction="h" * 10**6),
        lambda: tp.STMerge(distance_scale="d" * 10**6),  # type: ignore[arg-type]
        lambda: tp.preset("p" * 10**6),
        lambda: resolve_layer(HUGE, 28),
        lambda: tp.Pipeline([tp.UniformPrune(layer=HUGE, keep=1), tp.UniformPrune(layer=HUGE, keep=1)]),
        lambda: tp.Pipeline([tp.UniformSelect(keep=HUGE)]).to_dict(),
    ],
)
def test_errors_echo_a_line_at_most(call: Callable[[], Any]) -> None:
    with pytest.raises(tp.InvalidValueError) as error:
        call()
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: tp.preset("defualt"), "default"),
        (lambda: tp.preset("Stage1-only"), "stage1_only"),
        (lambda: tp.AttnPrune(keep=1, scorer="rope-causal"), "rope_causal"),
        (lambda: tp.AttnPrune(keep=1, select="stratifed"), "stratified"),
        (lambda: tp.STMerge(distance_scale="Raw"), "raw"),  # type: ignore[arg-type]
        (lambda: tp.ContentScore(head_reduction="sum"), None),
    ],
)
def test_errors_guess(call: Callable[[], Any], name: str | None) -> None:
    with pytest.raises(tp.InvalidValueError) as error:
        call()
    assert ("did you mean" in str(error.value)) == (name is not None)
    assert name is None or f"did you mean {name!r}?" in str(error.value)
