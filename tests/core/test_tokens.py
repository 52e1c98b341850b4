# SPDX-License-Identifier: Apache-2.0
"""Visual tokens: what merging does to features, sizes, places and membership."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles.plans import plans
from torch import Tensor

from tokenprune.errors import InvalidValueError
from tokenprune.plan import TokenPlan
from tokenprune.tokens import VisualTokens


def tokens(frames: int = 2, height: int = 2, width: int = 3) -> VisualTokens:
    count = frames * height * width
    features = torch.randn(count, 4, generator=torch.Generator().manual_seed(count))
    return VisualTokens(features, (frames, height, width))


@st.composite
def histories(draw: st.DrawFn) -> tuple[VisualTokens, list[TokenPlan]]:
    start = tokens(draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    chain = [draw(plans(total=len(start), weighted=False))]
    if draw(st.booleans()):
        chain.append(draw(plans(total=chain[-1].kept, weighted=False)))
    return start, chain


def test_fresh_tokens_are_the_full_grid() -> None:
    fresh = tokens()
    assert len(fresh) == fresh.volume == 12
    assert fresh.is_full_grid
    assert fresh.sizes is not None
    assert fresh.sizes.tolist() == [1] * 12
    assert [source.tolist() for source in fresh.sources] == [[index] for index in range(12)]
    assert fresh.blocks is None


@given(histories())
def test_every_token_is_in_one_place_or_dropped(history: tuple[VisualTokens, list[TokenPlan]]) -> None:
    start, chain = history
    merged = start
    for plan in chain:
        merged = plan.apply(merged)
    where = {index: index for index in range(start.volume)}  # each original token's place, followed by hand
    anchors = list(range(start.volume))
    for plan in chain:
        assign = plan.assign.tolist()
        where = {index: assign[place] if place >= 0 else -1 for index, place in where.items()}
        anchors = [anchors[anchor] for anchor in plan.anchors.tolist()]
    sources = [source.tolist() for source in merged.sources]
    assert sources == [sorted(i for i, place in where.items() if place == k) for k in range(len(merged))]
    assert merged.places is not None
    assert merged.places.tolist() == anchors
    assert all(anchor in source for anchor, source in zip(anchors, sources))
    flat = [index for source in sources for index in source]
    assert len(flat) == len(set(flat))
    assert merged.sizes is not None
    assert merged.sizes.tolist() == [len(source) for source in sources]
    assert merged.grid == start.grid
    assert merged.is_full_grid == (len(merged) == start.volume)


@given(histories())
def test_applying_mixes_the_features(history: tuple[VisualTokens, list[TokenPlan]]) -> None:
    start, chain = history
    before = start.features.clone()
    merged = chain[0].apply(start)
    assert torch.equal(merged.features, chain[0].mix(start.features))
    assert torch.equal(start.features, before)


def test_blocks_come_from_the_plan_or_follow_the_tokens() -> None:
    labelled = dataclasses.replace(TokenPlan.keeping(torch.arange(6), 12), blocks=torch.arange(6) // 2)
    once = labelled.apply(tokens())
    assert once.blocks is not None
    assert once.blocks.tolist() == [0, 0, 1, 1, 2, 2]
    twice = TokenPlan.keeping(torch.tensor([1, 4]), 6).apply(once)
    assert twice.blocks is not None
    assert twice.blocks.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": [[1.0]] * 12}, r"floating-point \(N, D\) tensor, got \[\[1.0\]"),
        ({"features": torch.ones(12)}, r"floating-point \(N, D\)"),
        ({"features": torch.ones(12, 4, dtype=torch.int64)}, r"floating-point \(N, D\)"),
        ({"features": torch.ones(11, 4)}, r"11 tokens, but the grid \(2, 2, 3\) has 12"),
        ({"grid": (2, 6)}, "three integers"),
        ({"grid": (2, 2, 3.0)}, "three integers"),
        ({"grid": (12, 1, True)}, "three integers"),
        ({"grid": (12, 1, 0)}, "three integers"),
        ({"sizes": torch.ones(12)}, "sizes must be int64"),
        ({"places": torch.arange(11)}, "places must be int64"),
        ({"membership": torch.arange(11)}, "membership must be int64"),
        ({"blocks": torch.zeros(12)}, "blocks must be int64"),
        ({"blocks": torch.zeros(3, dtype=torch.int64)}, "blocks must be int64"),
    ],
)
def test_tokens_that_do_not_fit_are_refused(arguments: dict[str, object], message: str) -> None:
    good: dict[str, object] = {"features": torch.ones(12, 4), "grid": (2, 2, 3)}
    with pytest.raises(InvalidValueError, match=message):
        VisualTokens(**{**good, **arguments})  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_features_that_are_no_numbers_are_found(bad: float) -> None:
    fine = tokens()
    assert fine.require_finite() is fine
    spoilt: Tensor = fine.features.clone()
    spoilt[7, 2] = bad
    with pytest.raises(InvalidValueError, match="finite"):
        VisualTokens(spoilt, fine.grid).require_finite()
