# SPDX-License-Identifier: Apache-2.0
"""DART: pivots, and what duplicates them least."""

from __future__ import annotations

from typing import Any

import pytest
from methods.inside import agrees_on_all_layers
from oracles.methods import ReferencePlan, dart
from oracles.seen import Seen

import tokenprune as tp


def at_its_layer(seen: Seen, pivot_image_token: int = 4, pivot_text_token: int = 4, **budget: Any) -> ReferencePlan:
    pivots = {"visual_pivots": pivot_image_token, "text_pivots": pivot_text_token}
    return dart.reference(seen.features, seen.visual_keys, seen.text_features, seen.text_keys, **pivots, **budget)


@pytest.mark.parametrize(
    "pivots", [{}, {"pivot_image_token": 1, "pivot_text_token": 0}, {"pivot_text_token": 9}], ids=str
)
def test_it_is_the_reference(pivots: dict[str, int]) -> None:
    agrees_on_all_layers(tp.DART, at_its_layer, **pivots)


def test_the_form_before_the_llm_is_its_reference() -> None:
    agrees_on_all_layers(
        lambda **budget: tp.DART(layer=None, **budget), lambda seen, **budget: dart.reference(seen.features, **budget)
    )


def test_where_it_acts_and_what_it_reads() -> None:
    inside, before = tp.DART(keep=3), tp.DART(layer=None, keep=3)
    assert (inside.layer, inside.site, inside.needs, inside.variant) == (1, "after_layer", ("attention",), False)
    assert (before.site, before.needs, before.variant) == ("before_llm", (), True)
    variants = [(row.site, row.needs, row.variant) for row in tp.methods() if row.name == "DART"]
    assert variants == [("before_llm", (), "layer=None"), ("after_layer", ("attention",), "")]


@pytest.mark.parametrize(
    "arguments",
    [{"pivot_image_token": 0}, {"pivot_text_token": -1}, {"layer": 1.5}],
    ids=str,
)
def test_what_is_not_allowed_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(tp.InvalidValueError):
        tp.DART(keep=3, **arguments)
