# SPDX-License-Identifier: Apache-2.0
"""Merging before the decoder equals a prompt built by hand from the plan: mixed embeddings, anchors' positions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")

from hf.compare import TOLERANCE, agrees, distance, generate, reports, stores
from hf.names import cache_of
from hf.oracle import Cut, Row, build_row, oracle
from hf.prompts import Clip, image, prompt, shared_model

import tokenprune as tp
from tokenprune.operators.random import RandomSelect
from tokenprune.operators.uniform import UniformSelect
from tokenprune.plan import TokenPlan
from tokenprune.tokens import VisualTokens

PROMPTS: dict[str, list[Any]] = {
    "one row": [[3, Clip(4, 2, 3), 4]],
    "padded": [[3, Clip(4, 2, 2), 4], [6, Clip(6, 2, 3), 7], [2, Clip(1, 3, 2), 1]],
    "two videos": [[2, Clip(4, 2, 2), 3, Clip(1, 2, 3), 5], [4, Clip(3, 2, 2), 3]],
    "images": [[2, image(2, 3), 1, Clip(4, 2, 2), 3], [2, Clip(2, 2, 3), 2, image(2, 2), 4], [3, image(3, 2), 2]],
    "text rows": [[9], [2, Clip(4, 2, 2), 3], [40]],
}
ST_MERGE = tp.STMerge(tau=0.6, cluster_ratio=0.5, temporal_segment_ratio=0.5, min_tokens=1)


class Pairs:
    """Merges each odd token into the one before it and drops every seventh: a merger of somebody else's."""

    def plan(self, tokens: VisualTokens) -> TokenPlan:
        assign = [-1 if i % 7 == 6 else i // 2 for i in range(len(tokens))]
        anchors = [i for i in range(len(tokens)) if i % 2 == 0 and i % 7 != 6]
        places = sorted({a for a in assign if a >= 0})
        anchors = [next(i for i in range(len(tokens)) if assign[i] == place) for place in places]
        return TokenPlan(torch.tensor(anchors), torch.tensor([places.index(a) if a >= 0 else -1 for a in assign]))


MERGERS = {
    "st_merge": ST_MERGE,
    "st_merge to a budget": tp.STMerge(keep_ratio=0.4, min_tokens=1),
    "uniform": UniformSelect(keep_ratio=0.5),
    "random": RandomSelect(keep=3),
    "pairs": Pairs(),
    "rounds of matching": tp.ToMe(keep_ratio=0.3),
    "what changed": tp.DTD(threshold=0.5),
}


@torch.no_grad()
def by_library(model: Any, row: Row) -> Tensor:
    """``(n, vocabulary)``: the library's decoder and head on a row built by hand, without padding or cache."""
    hidden = model.model.language_model(
        inputs_embeds=row.embeds.float().unsqueeze(0), position_ids=row.positions.unsqueeze(1), use_cache=False
    ).last_hidden_state
    return model.lm_head(hidden)[0]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("merger", MERGERS.values(), ids=MERGERS)
@pytest.mark.parametrize("rows", PROMPTS.values(), ids=PROMPTS)
def test_merging_is_a_shorter_prompt(rows: list[Any], merger: Any, attention: str) -> None:
    model, given = shared_model(attention), prompt(rows)
    with tp.attach(model, tp.Pipeline([merger])) as session:
        run = generate(model, given)
    whole = given.answered(run.sequences[:, given.length :])
    truth = oracle(model, whole, merge=merger.plan)
    for row, built in enumerate(truth.rows):
        assert built.columns == build_row(model, whole, row, merger.plan).columns
        found = torch.stack([step[row] for step in run.logits])
        assert float((by_library(model, built)[-5:-1] - found).abs().max()) < TOLERANCE
    agrees(run.logits, truth, given.length - 1)
    reports(session, truth, given.length, cache_of(run))
    longest = max(len(row.kept(given.length)) for row in truth.rows)
    stores(cache_of(run), given.length + 3, longest + 3)
    assert distance(run.logits, oracle(model, whole), given.length - 1) > 0.01


def test_the_clips_are_really_merged() -> None:
    """The merger under test finds static tokens and clusters on these clips: the cases above say something."""
    sizes = [len(group) for group in build_row(shared_model(), prompt(PROMPTS["one row"]), 0, ST_MERGE.plan).sources]
    assert max(sizes) >= 4
    assert sizes.count(1) >= 8


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("layer", [0, 1, 3])
@pytest.mark.parametrize("rows", PROMPTS.values(), ids=PROMPTS)
def test_merging_then_removal(rows: list[Any], layer: int, attention: str) -> None:
    model, given = shared_model(attention), prompt(rows)
    with tp.attach(model, tp.Pipeline([ST_MERGE, tp.AttnPrune(layer=layer, keep_ratio=0.4)])) as session:
        run = generate(model, given)
    truth = oracle(model, given.answered(run.sequences[:, given.length :]), [Cut(layer, 0.4)], ST_MERGE.plan)
    agrees(run.logits, truth, given.length - 1)
    reports(session, truth, given.length, cache_of(run))
    stores(cache_of(run), given.length + 3, max(len(row.kept(given.length)) for row in truth.rows) + 3)


def test_two_mergers() -> None:
    """The second sees what the first has left; the plans compose."""
    model, given = shared_model(), prompt(PROMPTS["padded"])

    def both(tokens: VisualTokens) -> TokenPlan:
        first = UniformSelect(keep_ratio=0.7).plan(tokens)
        return first.then(RandomSelect(keep_ratio=0.5).plan(first.apply(tokens)))

    with tp.attach(model, tp.Pipeline([UniformSelect(keep_ratio=0.7), RandomSelect(keep_ratio=0.5)])) as session:
        run = generate(model, given)
    truth = oracle(model, given.answered(run.sequences[:, given.length :]), merge=both)
    agrees(run.logits, truth, given.length - 1)
    reports(session, truth, given.length, cache_of(run))


@pytest.mark.parametrize("layer", [None, 1])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("given_positions", [0, 3, 4])
def test_bare_forward(layer: int | None, masked: bool, use_cache: bool, given_positions: int) -> None:
    """Gaps in the text positions must not be taken for packed sequences."""
    model, given = shared_model(), prompt([[3, Clip(4, 2, 2), 4], [4, Clip(4, 2, 2), 3]])
    inputs = given.inputs()
    if not masked:
        del inputs["attention_mask"]
    if given_positions:
        text = torch.arange(given.length).expand(1, 2, -1)
        inputs["position_ids"] = torch.cat([text, given.positions(model)])[-given_positions:]
    cuts = [] if layer is None else [Cut(layer, 0.4)]
    selectors = [tp.AttnPrune(layer=cut.layer, keep_ratio=0.4) for cut in cuts]
    with tp.attach(model, tp.Pipeline([ST_MERGE, *selectors])) as session, torch.no_grad():
        out = model(**inputs, use_cache=use_cache)
    truth = oracle(model, given, cuts, ST_MERGE.plan)
    reports(session, truth, given.length, cache_of(out))
    for row, columns in enumerate(session.report.kept):
        found = out.logits[row, out.logits.shape[1] - len(columns) :]
        assert float((found - truth.at(row, columns.tolist())).abs().max()) < TOLERANCE


def test_beams() -> None:
    model, given = shared_model(), prompt(PROMPTS["padded"])
    with tp.attach(model, tp.Pipeline([ST_MERGE, tp.AttnPrune(layer=1, keep_ratio=0.4)])) as session:
        run = generate(model, given, num_beams=3, num_return_sequences=3, output_scores=True)
    found = given.repeated(3).answered(run.sequences[:, given.length :])
    truth = oracle(model, found, [Cut(1, 0.4)], ST_MERGE.plan)
    for row, score in enumerate(run.sequences_scores):
        steps = truth.at(row, range(given.length - 1, given.length + 3)).log_softmax(dim=1)
        chosen = steps.gather(1, run.sequences[row, given.length :, None]).sum()
        assert float(chosen / 4) == pytest.approx(float(score), abs=1e-4)
    reports(session, oracle(model, given, [Cut(1, 0.4)], ST_MERGE.plan), given.length, cache_of(run))
