# SPDX-License-Identifier: Apache-2.0
"""Under flash-attention 2: the library unpads and packs for itself, and must find what it needs after each cut."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from hf.compare import TOLERANCE, agrees, forwards, generate, reports
from hf.flash import imitate_flash
from hf.names import cache_of
from hf.oracle import Cut, oracle
from hf.prompts import Clip, prompt

import tokenprune as tp

PROMPTS: dict[str, list[Any]] = {
    "one row": [[3, Clip(4, 2, 3), 4]],
    "even rows": [[3, Clip(4, 2, 2), 4], [4, Clip(4, 2, 2), 3]],
    "padded": [[3, Clip(4, 2, 2), 4], [6, Clip(6, 2, 3), 7], [45]],
}
ST_MERGE = tp.STMerge(tau=0.6, cluster_ratio=0.5, temporal_segment_ratio=0.5, min_tokens=1)
PIPELINES: dict[str, tuple[list[Any], list[Cut], Any]] = {
    "nothing": ([], [], None),
    "stage 2": ([tp.AttnPrune(layer=1, keep_ratio=0.4)], [Cut(1, 0.4)], None),
    "stage 1": ([ST_MERGE], [], ST_MERGE.plan),
    "both": ([ST_MERGE, tp.AttnPrune(layer=0, keep_ratio=0.4)], [Cut(0, 0.4)], ST_MERGE.plan),
}
over_pipelines = pytest.mark.parametrize("pipeline", PIPELINES.values(), ids=PIPELINES)
over_prompts = pytest.mark.parametrize("rows", PROMPTS)
Flash = tuple[Callable[[], Any], Counter[str]]


@pytest.fixture
def flash(monkeypatch: pytest.MonkeyPatch) -> Flash:
    return imitate_flash(monkeypatch)


@over_pipelines
@over_prompts
def test_generate_and_another_turn(rows: str, pipeline: tuple[list[Any], list[Cut], Any], flash: Flash) -> None:
    """A second turn of text, and a third with a video."""
    (get_model, calls), (operators, cuts, merge) = flash, pipeline
    model, given = get_model(), prompt(PROMPTS[rows])
    with tp.attach(model, tp.Pipeline(operators)) as session:
        run = generate(model, given)
        truth = oracle(model, given.answered(run.sequences[:, given.length :]), cuts, merge)
        agrees(run.logits, truth, given.length - 1)
        reports(session, truth, given.length, cache_of(run))
        talk = given.answered(run.sequences[:, given.length :])
        for turn, parts in enumerate([[[3], [5], [2]], [[2, Clip(3, 2, 2), 3], [1, Clip(2, 2, 2), 2], [7]]]):
            talk = talk.then(parts[: len(given.ids)], seed=turn + 2)
            asked = talk.length
            talk, steps = forwards(model, talk, cache_of(run))
            agrees(steps, oracle(model, talk, cuts, merge), asked - 1)
    assert calls["varlen" if rows == "padded" else "dense"] > 0


@over_pipelines
@over_prompts
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("given_positions", [0, 3, 4])
def test_forward(
    rows: str,
    pipeline: tuple[list[Any], list[Cut], Any],
    flash: Flash,
    masked: bool,
    use_cache: bool,
    given_positions: int,
) -> None:
    """One row without a mask is where gaps in the text positions would be taken for packed sequences."""
    (get_model, calls), (operators, cuts, merge) = flash, pipeline
    if rows == "padded" and not masked:
        rows = "even rows"
    model, given = get_model(), prompt(PROMPTS[rows])
    inputs = given.inputs()
    if not masked:
        del inputs["attention_mask"]
    if given_positions:
        text = (given.mask.cumsum(1) - 1).clamp(min=0).unsqueeze(0)
        inputs["position_ids"] = torch.cat([text, given.positions(model)])[-given_positions:]
    with tp.attach(model, tp.Pipeline(operators)) as session, torch.no_grad():
        out = model(**inputs, use_cache=use_cache)
    truth = oracle(model, given, cuts, merge)
    reports(session, truth, given.length, cache_of(out))
    for row, columns in enumerate(session.report.kept):
        found = out.logits[row, out.logits.shape[1] - len(columns) :]
        assert float((found - truth.at(row, columns.tolist())).abs().max()) < TOLERANCE
    assert sum(calls.values()) == 4


@over_prompts
def test_generate_without_cache(rows: str, flash: Flash) -> None:
    get_model, _ = flash
    model, given = get_model(), prompt(PROMPTS[rows])
    with tp.attach(model, tp.Pipeline([ST_MERGE, tp.AttnPrune(layer=1, keep_ratio=0.4)])):
        run = generate(model, given, use_cache=False)
    for step, logits in enumerate(run.logits):
        now = given.answered(run.sequences[:, given.length : given.length + step]).as_one_prefill()
        agrees([logits], oracle(model, now, [Cut(1, 0.4)], ST_MERGE.plan), now.length - 1)
