# SPDX-License-Identifier: Apache-2.0
"""A press on the finished cache: later queries see what it keeps, in each layer and head, and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")

from hf.compare import generate
from hf.names import CACHE, cache_of
from hf.pressing import ONE, RAGGED, largest, masked, visual
from hf.prompts import shared_model
from hf.running import answers, sequences

import tokenprune as tp
from tokenprune.errors import InvalidValueError, PlanError

Norms = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class LongKeys:
    """Keeps, in each layer, the tokens of the longest keys."""

    keep: int = 4
    site: ClassVar[str] = "after_prefill"

    @property
    def budget(self) -> tp.Budget:
        return tp.Budget(keep=self.keep)

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        view = tokens.signals["attention"]
        norms = view.keys()[:, view.visual_columns].float().square().sum((0, 2))
        return tp.TokenPlan.keeping(torch.tensor(largest(norms, min(self.keep, len(tokens)))), len(tokens))


@dataclass(frozen=True)
class LongKeysOfEachHead(LongKeys):
    """The same for each key-value head by itself."""

    def plan(self, tokens: tp.VisualTokens) -> Any:
        view = tokens.signals["attention"]
        norms = view.keys()[:, view.visual_columns].float().square().sum(2)
        count = min(self.keep, len(tokens))
        return [tp.TokenPlan.keeping(torch.tensor(largest(row, count)), len(tokens)) for row in norms]


@dataclass(frozen=True)
class Attended(LongKeys):
    """Keeps, in each layer, what the last text token attends to most; reads queries, keys and values."""

    needs: ClassVar[tuple[str, ...]] = ("attention",)

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        view = tokens.signals["attention"]
        assert view.values().shape == view.keys().shape
        scores = tp.RopeCausalScore().score(tokens)
        return tp.TokenPlan.keeping(torch.tensor(largest(scores, min(self.keep, len(tokens)))), len(tokens))


def kept_by(norms: Norms, cache: Any, given: Any, keep: int) -> list[list[list[set[int]]]]:
    """Per layer, row and head the visual columns that stay, from the plain model's keys."""
    layers = []
    for layer in cache.layers:
        rows = []
        for row in range(len(given.ids)):
            columns = visual(given, row)
            scores = norms(layer.keys[row][:, columns].float()) if columns else torch.zeros(layer.keys.shape[1], 0)
            rows.append([{columns[i] for i in largest(head, min(keep, len(columns)))} for head in scores])
        layers.append(rows)
    return layers


def by_layer(keys: Tensor) -> Tensor:
    return keys.square().sum((0, 2)).expand(len(keys), -1)


def by_head(keys: Tensor) -> Tensor:
    return keys.square().sum(2)


@pytest.mark.parametrize("given", [ONE, RAGGED], ids=["one row", "ragged"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(("press", "norms"), [(LongKeys(), by_layer), (LongKeysOfEachHead(), by_head)])
def test_later_queries_see_what_is_kept(press: Any, norms: Norms, attention: str, given: Any) -> None:
    eager = shared_model("eager")
    with torch.no_grad():
        plain = cache_of(eager(**given.inputs(), use_cache=True))
    kept = kept_by(norms, plain, given, press.keep)
    model = shared_model(attention)
    with tp.attach(model, tp.Pipeline([press])) as session:
        run = generate(model, given)
    new = run.sequences[:, given.length :]
    truth = masked(eager, given, new, kept)
    for step, logits in enumerate(run.logits):
        assert torch.allclose(logits, truth[:, given.length - 1 + step], atol=1e-4), step
    everything = masked(eager, given, new, kept_by(norms, plain, given, 99))
    assert not torch.allclose(run.logits[-1], everything[:, given.length + len(run.logits) - 2], atol=1e-2)
    report = session.report
    for row in range(len(given.ids)):
        union = set().union(*(head for layer in kept for head in layer[row]))
        assert set(report.kept[row].tolist()) & set(visual(given, row)) == union
    counts = [min(press.keep, len(visual(given, row))) for row in range(len(given.ids))]
    images = [sum(p.clip.count for p in row if p.clip.modality == "image") for row in given.clips]
    assert report.to_dict()["kept_per_head"] == [a + b for a, b in zip(counts, images)]
    longest = max(int(given.mask[row].sum()) - len(visual(given, row)) + counts[row] for row in range(len(given.ids)))
    assert {layer.keys.shape[2] for layer in cache_of(run).layers} == {longest + len(run.logits) - 1}
    assert report.stages[-1]["site"] == "after_prefill"


@pytest.mark.parametrize("given", [ONE, RAGGED], ids=["one row", "ragged"])
def test_a_press_after_both_stages(given: Any) -> None:
    """The prefill is that of the other stages; the cache holds what the press leaves of their tokens."""
    model, before = shared_model(), [tp.STMerge(keep_ratio=0.8, min_tokens=2), tp.AttnPrune(layer=1, keep_ratio=0.7)]
    with tp.attach(model, tp.Pipeline(before)) as session:
        first = sequences(model, given.inputs(), new=1, output_logits=True, return_dict_in_generate=True)
        kept = session.report.kept
    with tp.attach(model, tp.Pipeline([*before, Attended(3)])) as session:
        out = sequences(model, given.inputs(), new=3, output_logits=True, return_dict_in_generate=True)
        report = session.report
        again = copy.deepcopy(cache_of(out))
        assert {layer.get_seq_length() for layer in again.layers} == {given.length + 2}
    assert torch.equal(first.logits[0], out.logits[0])
    for row, (mine, others) in enumerate(zip(report.kept, kept)):
        assert set(mine.tolist()) <= set(others.tolist())
        text = [c for c in others.tolist() if c not in visual(given, row)]
        assert [c for c in mine.tolist() if c not in visual(given, row)] == text
        assert len(report.sources[row]) == len(mine) - len([c for c in text if given.types[row, c] == 0])


def test_keeping_all_is_the_plain_model() -> None:
    model = shared_model()
    plain = generate(model, RAGGED)
    with tp.attach(model, tp.Pipeline([LongKeys(99)])) as session:
        run = generate(model, RAGGED)
        assert session.report.visual_retained == [1.0, 1.0, 1.0]
    assert all(torch.equal(a, b) for a, b in zip(plain.logits, run.logits))


def test_beams_and_a_second_turn() -> None:
    model = shared_model()
    with tp.attach(model, tp.Pipeline([LongKeys()])) as session:
        assert len(answers(model, RAGGED, num_beams=2)) == 3
        out = sequences(model, ONE.inputs(), return_dict_in_generate=True)
        talk = ONE.answered(out.sequences[:, ONE.length :]).then([[4]])
        more = {**{name: None for name in talk.inputs() if "pixel" in name}, CACHE: cache_of(out)}
        assert len(answers(model, talk, **more)[0]) == 4
        assert len(session.reports) == 2


def test_without_a_cache_there_is_nothing_to_press() -> None:
    model = shared_model()
    plain = answers(model, ONE, use_cache=False)
    with tp.attach(model, tp.Pipeline([LongKeys()])):
        assert answers(model, ONE, use_cache=False) == plain


@dataclass(frozen=True)
class Uneven(LongKeys):
    """Keeps another number whenever it is asked."""

    asked: ClassVar[list[int]] = []
    budget: ClassVar[Any] = None  # type: ignore[assignment]

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        self.asked.append(1)
        return tp.TokenPlan.keeping(torch.arange(1 + len(self.asked) % 3), len(tokens))


def test_layers_that_keep_different_numbers_are_refused() -> None:
    with (
        tp.attach(shared_model(), tp.Pipeline([Uneven()])),
        pytest.raises(PlanError, match=r"in layer 1, . in layer 0"),
    ):
        answers(shared_model(), ONE)


def test_what_a_pipeline_cannot_press() -> None:
    with pytest.raises(InvalidValueError, match=r"LongKeys .* cannot be used with mass"):
        tp.Pipeline([LongKeys()], mass="sizes")
    with pytest.raises(InvalidValueError, match="presses the finished cache once"):
        tp.Pipeline([LongKeys(), LongKeysOfEachHead()])
    with pytest.raises(InvalidValueError, match="AttnPrune acts inside the LLM and cannot follow"):
        tp.Pipeline([LongKeys(), tp.AttnPrune(layer=1, keep=3)])
