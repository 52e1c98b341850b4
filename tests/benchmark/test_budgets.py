# SPDX-License-Identifier: Apache-2.0
"""Counts for a layer-averaged budget: exact where they claim it, against brute force."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("transformers")

from tokenprune.bench.world_benchmark.budgets import Decoder
from tokenprune.bench.world_benchmark.entries import METHODS, Fixed, Matched, Method, spending
from tokenprune.bench.world_benchmark.suites import SUITES

decoders = st.builds(Decoder, tokens=st.integers(1, 400), depth=st.integers(2, 36))
ratios = st.fractions(Fraction(1, 100), 1, max_denominator=100)


@given(decoders, ratios, st.data())
def test_a_level_is_met_by_a_merger_and_by_a_selector_that_can_go_so_low(
    decoder: Decoder, ratio: Fraction, data: st.DataObject
) -> None:
    layer = data.draw(st.integers(0, decoder.depth - 1))
    spend = decoder.level(ratio, layer)
    assert spend % decoder.depth == 0
    assert decoder.depth <= spend <= decoder.depth * decoder.tokens
    count = decoder.selector_count(spend, layer)
    if count is not None:
        assert decoder.spend(decoder.tokens, count, layer) == spend


@given(decoders, ratios, st.data())
def test_a_level_is_near(decoder: Decoder, ratio: Fraction, data: st.DataObject) -> None:
    layer = data.draw(st.integers(0, decoder.depth - 1))
    if decoder.tokens < 2 * decoder.depth or not Fraction(1, 10) <= ratio <= Fraction(9, 10):
        return
    later = decoder.depth - layer - 1
    assert abs(decoder.budget(decoder.level(ratio, layer)) - ratio) * decoder.tokens <= max(1, later)


@given(decoders, st.integers(1, 20_000), st.data())
def test_a_selector_alone_keeps_the_most_it_can_pay_for(decoder: Decoder, spend: int, data: st.DataObject) -> None:
    layer = data.draw(st.integers(0, decoder.depth - 1))
    payable = [count for count in range(1, decoder.tokens + 1) if decoder.spend(decoder.tokens, count, layer) <= spend]
    last = layer == decoder.depth - 1
    assert decoder.selector_count(spend, layer) == (None if last or not payable else payable[-1])


@given(st.builds(Decoder, st.integers(1, 40), st.integers(2, 9)), ratios, st.integers(1, 300), st.data())
def test_a_pair_spends_exactly_and_is_the_nearest(
    decoder: Decoder, ratio: Fraction, spend: int, data: st.DataObject
) -> None:
    layer = data.draw(st.integers(0, decoder.depth - 2))
    exact = [
        (abs(Fraction(late, early) - ratio), early, late)
        for early in range(1, decoder.tokens + 1)
        for late in range(1, early + 1)
        if decoder.spend(early, late, layer) == spend
    ]
    assert decoder.pair(spend, ratio, layer) == (min(exact)[1:] if exact else None)


def test_the_world_of_288_tokens_and_8_layers() -> None:
    decoder = Decoder(288, 8)
    spend = decoder.level(Fraction(1, 2), 2)
    assert spend == 8 * 143
    assert decoder.selector_count(spend, 2) == 56
    assert decoder.selector_count(decoder.level(Fraction(1, 4), 2), 2) is None
    early, late = decoder.pair(spend, Fraction(2, 5), 2) or (0, 0)
    assert 3 * early + 5 * late == spend
    assert abs(late / early - 0.4) < 0.02


@given(st.sampled_from(METHODS), st.integers(2, 12), st.integers(1, 60), st.integers(0, 2**40), st.data())
def test_chance_spends_what_it_is_told(method: Method, depth: int, tokens: int, seed: int, data: st.DataObject) -> None:
    spend = data.draw(st.integers(depth, depth * tokens))
    pipeline = spending(method, spend, depth, seed)
    (first,) = pipeline.mergers
    seen = [first.budget.count(tokens)] * depth  # type: ignore[attr-defined]
    for selector, layer in zip(pipeline.selectors, pipeline.layers(depth)):
        seen[layer + 1 :] = [selector.budget.count(seen[layer])] * (depth - layer - 1)
    assert sum(seen) == spend


@pytest.mark.parametrize("decoder", [Decoder(288, 8), Decoder(1296, 28), Decoder(2000, 36), Decoder(32, 4)])
@pytest.mark.parametrize("name", SUITES)
def test_suites_name_each_row_once_and_match_to_earlier_rows(name: str, decoder: Decoder) -> None:
    suite = SUITES[name](decoder)
    names = [entry.name for entry in suite.entries]
    assert len(set(names)) == len(names)
    assert not set(names) & set(suite.unreachable)
    for place, entry in enumerate(suite.entries):
        if isinstance(entry, Matched):
            assert entry.to in names[:place]
        if isinstance(entry, Fixed):
            entry.pipeline.layers(decoder.depth)


def test_the_sweep_says_what_stage_2_alone_cannot_reach() -> None:
    suite = SUITES["sweep"](Decoder(288, 8))
    assert list(suite.unreachable) == [f"stage 2 at {percent} %" for percent in (25, 20, 15, 10)]
    assert all("37.5%" in reason for reason in suite.unreachable.values())
    assert "stage 2 at 50 %" in [entry.name for entry in suite.entries]
