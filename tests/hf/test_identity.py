# SPDX-License-Identifier: Apache-2.0
"""A pipeline that keeps everything is bit-identical to the plain model: nothing scored, gathered or replaced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")

from hf.compare import generate
from hf.names import CACHE, cache_of
from hf.prompts import Clip, image, prompt, shared_model

import tokenprune as tp
from tokenprune.hf.layer import PrunableLayer
from tokenprune.operators.random import RandomSelect
from tokenprune.operators.uniform import UniformSelect
from tokenprune.runtime.slots import Gather, Slots
from tokenprune.tokens import VisualTokens


@dataclass(frozen=True)
class Untouchable:
    """A scorer that must never be asked."""

    def score(self, tokens: VisualTokens) -> Tensor:
        raise AssertionError("something was scored")


def keeping(**budget: Any) -> Any:
    return tp.AttnPrune(layer=1, scorer=Untouchable(), **budget)


PIPELINES: dict[str, list[Any]] = {
    "empty": [],
    "selector ratio": [keeping(keep_ratio=1.0)],
    "selector count": [keeping(keep=18)],
    "selector of other modality": [tp.AttnPrune(layer=1, keep=4, scorer=Untouchable(), modalities=("image",))],
    "st_merge": [tp.STMerge(keep_ratio=1.0)],
    "uniform": [UniformSelect(keep_ratio=1.0)],
    "random": [RandomSelect(keep=18)],
    "press": [tp.SnapKV(keep=18)],
    "everything": [tp.STMerge(keep=18), UniformSelect(keep_ratio=1.0), keeping(keep_ratio=1.0)],
}
ROWS = [[3, Clip(3, 2, 3), 4], [2, image(2, 2), 3, Clip(2, 2, 2), 5]]


@pytest.fixture(autouse=True)
def nothing_is_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("something was gathered or cut")

    monkeypatch.setattr(Gather, "take", refuse)
    monkeypatch.setattr(Slots, "keep", refuse)
    monkeypatch.setattr(PrunableLayer, "take", refuse)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("operators", PIPELINES.values(), ids=PIPELINES)
def test_generate_twice(operators: list[Any], attention: str) -> None:
    """Tokens, logits and the cache of two turns."""
    model, given = shared_model(attention), prompt(ROWS)
    later = dict.fromkeys(given.inputs())  # leaves out what belongs to the first turn

    def talk() -> list[Any]:
        first = generate(model, given)
        second = given.answered(first.sequences[:, given.length :]).then([[4], [2]])
        inputs = {**later, "input_ids": second.ids, "attention_mask": second.mask}
        return [first, generate(model, second, **{CACHE: cache_of(first)}, **inputs)]

    plain = talk()
    with tp.attach(model, tp.Pipeline(operators)) as session:
        pruned = talk()
    for one, other in zip(plain, pruned):
        assert torch.equal(one.sequences, other.sequences)
        assert all(torch.equal(a, b) for a, b in zip(one.logits, other.logits, strict=True))
    for a, b in zip(cache_of(plain[1]).layers, cache_of(pruned[1]).layers, strict=True):
        assert torch.equal(a.keys, b.keys)
        assert torch.equal(a.values, b.values)
    assert session.report.visual_retained == session.report.layer_averaged_retained == [1.0, 1.0]
    assert session.report.kv_bytes == session.report.kv_bytes_unpruned > 0
    assert [kept.tolist() for kept in session.report.kept] == [row.nonzero().flatten().tolist() for row in given.mask]
    visual = [types.nonzero().flatten().tolist() for types in given.types]
    assert [[c for source in row for c in source.tolist()] for row in session.report.sources] == visual


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("operators", PIPELINES.values(), ids=PIPELINES)
def test_forward(operators: list[Any], use_cache: bool, masked: bool, attention: str) -> None:
    """All logits of a prompt, those at padding included."""
    model, given = shared_model(attention), prompt(ROWS if masked else ROWS[:1])
    inputs = given.inputs()
    if not masked:
        del inputs["attention_mask"]
    with torch.no_grad():
        plain = model(**inputs, use_cache=use_cache).logits
        with tp.attach(model, tp.Pipeline(operators)) as session:
            pruned = model(**inputs, use_cache=use_cache).logits
    assert torch.equal(plain, pruned)
    assert session.report.kv_bytes == session.report.kv_bytes_unpruned
    assert (session.report.kv_bytes is not None) == use_cache


def test_the_fixture_sees_a_cut() -> None:
    """What must not happen above does happen when a token goes, and is noticed."""
    model, given = shared_model(), prompt(ROWS)
    with pytest.raises(AssertionError, match="gathered or cut"), tp.attach(model, tp.Pipeline([tp.STMerge(keep=7)])):
        generate(model, given)
    with pytest.raises(AssertionError, match="scored"), tp.attach(model, tp.Pipeline([keeping(keep=17)])):
        generate(model, given)
