# SPDX-License-Identifier: Apache-2.0
"""Removing tokens after a layer equals masking them in the full-length model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from hf.compare import agrees, distance, generate, reports, stores
from hf.names import cache_of
from hf.oracle import Cut, oracle
from hf.prompts import TEXT, Clip, image, prompt, shared_model

import tokenprune as tp

PROMPTS: dict[str, list[Any]] = {
    "one row": [[3, Clip(3, 2, 3), 4]],
    "padded": [[3, Clip(2, 2, 2), 4], [6, Clip(4, 2, 3), 7], [2, Clip(1, 3, 2), 1]],
    "two videos": [[2, Clip(2, 2, 2), 3, Clip(1, 2, 3), 5], [4, Clip(3, 2, 2), 3]],
    "two videos without text between": [[Clip(2, 2, 2), Clip(2, 2, 2), 3]],
    "images": [[2, image(2, 3), 1, Clip(2, 2, 2), 3], [2, Clip(2, 2, 3), 2, image(2, 2), 4], [3, image(3, 2), 2]],
    "text rows": [[9], [2, Clip(3, 2, 2), 3], [30]],
}
DEPTH = 4


def pruned(model: Any, selectors: list[Any], given: Any, **more: Any) -> tuple[tp.Session, Any]:
    with tp.attach(model, tp.Pipeline(selectors)) as session:
        return session, generate(model, given, **more)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("layer", [0, 1, DEPTH - 1])
@pytest.mark.parametrize("rows", PROMPTS.values(), ids=PROMPTS)
def test_removal_is_masking(rows: list[Any], layer: int, attention: str) -> None:
    model, given = shared_model(attention), prompt(rows)
    session, run = pruned(model, [tp.AttnPrune(layer=layer, keep_ratio=0.4)], given)
    whole = given.answered(run.sequences[:, given.length :])
    truth = oracle(model, whole, [Cut(layer, keep_ratio=0.4)])
    agrees(run.logits, truth, given.length - 1)
    reports(session, truth, given.length, cache_of(run))
    longest = max(len(row.kept(given.length)) for row in truth.rows)
    stores(cache_of(run), given.length + 3, longest + 3)
    assert distance(run.logits, oracle(model, whole), given.length - 1) > 0.01  # nothing masked would be noticed


@pytest.mark.parametrize(
    "budget", [{"keep": 1}, {"keep": 7}, {"keep_ratio": 0.01}, {"keep_ratio": 0.95}, {"keep": 23}], ids=str
)
def test_budgets(budget: dict[str, Any]) -> None:
    """``keep=23`` cuts one row of three: the others, and the text, stay whole."""
    model, given = shared_model(), prompt(PROMPTS["padded"])
    session, run = pruned(model, [tp.AttnPrune(layer=1, **budget)], given)
    truth = oracle(model, given.answered(run.sequences[:, given.length :]), [Cut(1, **budget)])
    agrees(run.logits, truth, given.length - 1)
    reports(session, truth, given.length, cache_of(run))


@pytest.mark.parametrize("modalities", [("image",), ("video", "image")], ids=str)
def test_images_are_cut_where_asked_for(modalities: tuple[str, ...]) -> None:
    model, given = shared_model(), prompt(PROMPTS["images"])
    session, run = pruned(model, [tp.AttnPrune(layer=1, keep_ratio=0.5, modalities=modalities)], given)
    truth = oracle(model, given.answered(run.sequences[:, given.length :]), [Cut(1, 0.5, modalities=modalities)])
    agrees(run.logits, truth, given.length - 1)
    reports(session, truth, given.length, cache_of(run))


@pytest.mark.parametrize("layers", [(0, 2), (1, 2), (0, 3)], ids=str)
def test_two_selectors(layers: tuple[int, int]) -> None:
    model, given = shared_model(), prompt(PROMPTS["two videos"])
    selectors = [tp.AttnPrune(layer=layers[0], keep_ratio=0.7), tp.AttnPrune(layer=layers[1], keep=3)]
    session, run = pruned(model, selectors, given)
    cuts = [Cut(layers[0], keep_ratio=0.7), Cut(layers[1], keep=3)]
    truth = oracle(model, given.answered(run.sequences[:, given.length :]), cuts)
    agrees(run.logits, truth, given.length - 1)
    reports(session, truth, given.length, cache_of(run))
    first = [cuts[0].count(n) for n in session.report.visual_tokens]
    text = [p - v for p, v in zip(session.report.prompt_tokens, session.report.visual_tokens)]
    visual = [session.report.visual_tokens] * (layers[0] + 1) + [first] * (layers[1] - layers[0])
    wanted = [[t + v for t, v in zip(text, row)] for row in visual + [[3, 3]] * (DEPTH - len(visual))]
    assert session.report.layer_tokens == wanted


def test_beams() -> None:
    """What three beams have found is scored by the masked model: the same log-probability of each."""
    model, given = shared_model(), prompt(PROMPTS["padded"])
    with tp.attach(model, tp.Pipeline([tp.AttnPrune(layer=1, keep_ratio=0.4)])) as session:
        run = generate(model, given, num_beams=3, num_return_sequences=3, output_scores=True, length_penalty=1.0)
    found = given.repeated(3).answered(run.sequences[:, given.length :])
    truth = oracle(model, found, [Cut(1, keep_ratio=0.4)])
    for row, score in enumerate(run.sequences_scores):
        steps = truth.at(row, range(given.length - 1, given.length + 3)).log_softmax(dim=1)
        chosen = steps.gather(1, run.sequences[row, given.length :, None]).sum()
        assert float(chosen / 4) == pytest.approx(float(score), abs=1e-4)
    first = oracle(model, given, [Cut(1, keep_ratio=0.4)])
    assert session.report.expanded == 3
    reports(session, first, given.length, cache_of(run))


def test_beams_search_as_the_masked_model_does() -> None:
    """Beam search over the oracle's own probabilities, by hand, ends with the same three sequences."""
    model, given = shared_model(), prompt(PROMPTS["one row"])
    selectors = [tp.AttnPrune(layer=1, keep_ratio=0.4)]
    _, run = pruned(model, selectors, given, new=3, num_beams=3, num_return_sequences=3)
    beams = [((), 0.0)]
    for _ in range(3):
        grown = []
        for tokens, score in beams:
            whole = given.answered(torch.tensor([tokens], dtype=torch.long)) if tokens else given
            steps = oracle(model, whole, [Cut(1, keep_ratio=0.4)]).at(0, [whole.length - 1])[0].log_softmax(dim=0)
            grown += [((*tokens, t), score + float(p)) for t, p in enumerate(steps[:TEXT])]
        beams = sorted(grown, key=lambda beam: -beam[1])[:3]
    assert [tuple(s) for s in run.sequences[:, given.length :].tolist()] == [tokens for tokens, _ in beams]


def test_return_sequences() -> None:
    model, given = shared_model(), prompt(PROMPTS["padded"])
    torch.manual_seed(3)
    selectors = [tp.AttnPrune(layer=1, keep_ratio=0.4)]
    session, run = pruned(model, selectors, given, do_sample=True, top_k=0, num_return_sequences=2)
    whole = given.repeated(2).answered(run.sequences[:, given.length :])
    agrees(run.logits, oracle(model, whole, [Cut(1, keep_ratio=0.4)]), given.length - 1)
    assert session.report.expanded == 2
    reports(session, oracle(model, given, [Cut(1, keep_ratio=0.4)]), given.length, cache_of(run))


class TestBareForward:
    """``model(...)`` instead of ``generate``: logits of the shortened, left-padded sequence."""

    def compare(self, model: Any, given: Any, layer: int = 1, **inputs: Any) -> tp.Session:
        with tp.attach(model, tp.Pipeline([tp.AttnPrune(layer=layer, keep_ratio=0.4)])) as session, torch.no_grad():
            out = model(**inputs)
        truth = oracle(model, given, [Cut(layer, keep_ratio=0.4)])
        reports(session, truth, given.length, cache_of(out))
        for row, columns in enumerate(session.report.kept):
            found = out.logits[row, out.logits.shape[1] - len(columns) :]
            assert float((found - truth.at(row, columns.tolist())).abs().max()) < 1e-4
        return session

    @pytest.mark.parametrize("attention", ["sdpa", "eager"])
    @pytest.mark.parametrize("use_cache", [None, True, False])
    @pytest.mark.parametrize("rows", PROMPTS.values(), ids=PROMPTS)
    def test_with_mask(self, rows: list[Any], use_cache: bool | None, attention: str) -> None:
        given = prompt(rows)
        self.compare(shared_model(attention), given, **given.inputs(), use_cache=use_cache)

    @pytest.mark.parametrize("use_cache", [True, False])
    @pytest.mark.parametrize("rows", [PROMPTS["one row"], [[3, Clip(2, 2, 2), 4], [4, Clip(2, 2, 2), 3]]])
    @pytest.mark.parametrize("given_positions", [0, 3, 4])
    def test_without_mask(self, rows: list[Any], use_cache: bool, given_positions: int) -> None:
        """No mask, and no cache: where the library looks for packed sequences in the text positions."""
        model, given = shared_model(), prompt(rows)
        inputs = given.inputs()
        del inputs["attention_mask"]
        positions = given.positions(model)
        if given_positions == 4:
            text = torch.arange(given.length).expand(1, len(given.ids), -1)
            inputs["position_ids"] = torch.cat([text, positions])
        elif given_positions == 3:
            inputs["position_ids"] = positions
        self.compare(model, given, **inputs, use_cache=use_cache)

    def test_each_forward_without_cache_is_a_prefill(self) -> None:
        model, given = shared_model(), prompt(PROMPTS["padded"])
        whole = given.answered(torch.tensor([[5, 6], [7, 8], [9, 10]])).as_one_prefill()
        self.compare(model, given, **given.inputs(), use_cache=False)
        self.compare(model, whole, **whole.inputs(), use_cache=False)

    def test_generate_without_cache(self) -> None:
        """Each step is a prefill of its own: it is scored and cut anew, by the questions and answers so far."""
        model, given = shared_model(), prompt(PROMPTS["padded"])
        session, run = pruned(model, [tp.AttnPrune(layer=1, keep_ratio=0.4)], given, use_cache=False)
        assert len(session.reports) == 4
        for step, logits in enumerate(run.logits):
            now = given.answered(run.sequences[:, given.length : given.length + step]).as_one_prefill()
            truth = oracle(model, now, [Cut(1, keep_ratio=0.4)])
            agrees([logits], truth, now.length - 1)
            assert [k.tolist() for k in session.reports[step].kept] == [row.kept(now.length) for row in truth.rows]

    def test_all_layers_hidden_states(self) -> None:
        """``output_hidden_states`` shows each layer's own, shorter from the cut on."""
        model, given = shared_model(), prompt(PROMPTS["one row"])
        with tp.attach(model, tp.Pipeline([tp.AttnPrune(layer=1, keep=2)])), torch.no_grad():
            out = model(**given.inputs(), output_hidden_states=True)
        shorter = given.length - 18 + 2
        assert out.hidden_states[0].shape[1] == given.length
        assert [h.shape[1] for h in out.hidden_states[3:]] == [shorter] * (DEPTH - 2)
