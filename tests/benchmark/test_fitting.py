# SPDX-License-Identifier: Apache-2.0
"""Methods inside the LLM at a layer-averaged budget: as many tokens as it pays for, and not one more."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, ClassVar

import pytest

pytest.importorskip("transformers")

import tokenprune as tp
from tokenprune.bench.world_benchmark.budgets import Decoder
from tokenprune.bench.world_benchmark.fitting import at_budget, at_ratio, series_of
from tokenprune.catalogue import Method, method, methods
from tokenprune.operators.uniform import UniformSelect

WORLD = Decoder(tokens=192, depth=8)
INSIDE = [each for each in methods() if each.site == "after_layer" and each.has_budget]


def by_hand(operators: Any, tokens: int, depth: int) -> int:
    """Tokens seen, layer by layer, from the stages' own layers and counts."""
    stages: list[Any] = [
        (stage.layer, stage.schedule, stage.operator) for stage in tp.Pipeline(operators).stages(depth)
    ]
    left = entered = min([tokens, *(operator.budget(tokens) for layer, _, operator in stages if layer is None)])
    total = 0
    for now in range(depth):
        total += left
        for layer, schedule, operator in stages:
            if layer == now:
                left = min(left, operator.budget(left if schedule is None else entered))
    return total


@pytest.mark.parametrize("chosen", INSIDE, ids=lambda each: each.name)
@pytest.mark.parametrize("ratio", [0.9, 0.5, 0.33])
def test_the_most_that_the_budget_pays_for(chosen: Method, ratio: float) -> None:
    found = at_budget(chosen, ratio, WORLD)
    wanted = -(-Fraction(str(ratio)) * 192 // 1) * 8
    if isinstance(found, str):
        assert by_hand([chosen.cls(keep=1)], 192, 8) > wanted
        return
    spent = by_hand(found.operators, 192, 8)
    assert WORLD.spent_by(found) == spent <= wanted
    kept = found.operators[0].keep  # type: ignore[union-attr]
    more = tp.Pipeline([replace(found.operators[0], keep=kept + 1), *found.operators[1:]])  # type: ignore[type-var]
    assert kept == 192 or by_hand(more.operators, 192, 8) > wanted


def test_one_layer_has_the_closed_form() -> None:
    for percent in range(26, 100, 7):
        spend = 8 * -(-percent * 192 // 100)
        found = at_budget(method("FastV"), percent / 100, WORLD)
        assert found == tp.Pipeline([tp.FastV(keep=WORLD.selector_count(spend, layer=1))])


def test_second_halves_follow_the_first_with_the_published_share() -> None:
    found = at_budget(method("HoliTomInner"), 0.25, WORLD)
    assert isinstance(found, tp.Pipeline)
    first, second = found.operators
    assert isinstance(first, tp.HoliTom)
    assert second == tp.HoliTomInner(keep_ratio=0.5)
    assert found.layers(8) == [4]
    assert first.keep == 58  # 5 layers of 58 and 3 of 29 are 377 of 384
    assert series_of(method("FlashVIDInner")) == "FlashVID+FlashVIDInner"


def test_keeping_all_is_a_budget_too() -> None:
    assert at_budget(method("FastV"), 1.0, WORLD) == tp.Pipeline([tp.FastV(keep=192)])


def test_what_is_out_of_reach_says_why() -> None:
    assert at_budget(method("FastV"), 0.25, WORLD) == (
        "a single token kept after layer 1 of 8 is a budget of 25.4% already"
    )
    assert "after layer 1, 3, 5 of 8" in str(at_budget(method("PyramidDrop"), 0.2, WORLD))


def test_before_the_llm_the_ratio_is_the_budget() -> None:
    chosen = method("CDPruner")
    assert at_budget(chosen, 0.1, WORLD) == at_ratio(chosen, 0.1)
    assert at_ratio(chosen, 0.1) == tp.Pipeline([tp.CDPruner(keep_ratio=0.1, relevance="text")])


@dataclass(frozen=True)
class Silent(UniformSelect):
    """Decides by itself how many stay, whatever it is given."""

    site: ClassVar[str] = "after_layer"
    layer: ClassVar[int] = 1
    budget: ClassVar[None] = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        pass


def test_a_method_that_does_not_say_how_many_it_leaves_is_named() -> None:
    chosen = replace(method("UniformPrune"), name="Silent", cls=Silent)
    assert "known only from the clip" in str(at_budget(chosen, 0.5, WORLD))
