# SPDX-License-Identifier: Apache-2.0
"""One prompt with attention mass equals the full-length model with log(mass) on the columns that stay."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from hf.compare import TOLERANCE, agrees, distance, generate, reports, stores
from hf.mass_cases import (
    BOTH,
    FIRST,
    SEEN,
    Case,
    agrees_only_with_bias,
    held,
    holds,
    needs_mass,
    over_backends,
    over_more,
    over_pipelines,
    over_rows,
    over_runs,
    with_mass,
)
from hf.mass_oracle import mass_oracle, without_bias
from hf.names import cache_of
from hf.oracle import Oracle
from hf.prompts import Clip, prompt, shared_model

import tokenprune as tp

pytestmark = needs_mass


def generates(rows: list[Any], case: Case, attention: str) -> None:
    (operators, turn), model, given = case, shared_model(attention), prompt(rows)
    with tp.attach(model, with_mass(operators)) as session:
        run = generate(model, given)
    whole = given.answered(run.sequences[:, given.length :])
    truth = mass_oracle(model, whole, turn)
    agrees_only_with_bias(model, run.logits, truth, given.length - 1)
    reports(session, truth, given.length, cache_of(run))
    stores(cache_of(run), whole.length - 1, max(len(row.kept(whole.length - 1)) for row in truth.rows))
    holds(cache_of(run), truth, whole.length - 1)


@over_backends
@over_rows
@over_pipelines
def test_generate(case: Case, rows: str, attention: str) -> None:
    generates(FIRST[rows], case, attention)


@over_more
def test_more_pipelines(case: Case) -> None:
    generates(FIRST["ragged"], case, "sdpa")


@over_backends
@pytest.mark.parametrize(
    "rows",
    [[[Clip(2, 2, 2), Clip(3, 2, 2), 3]], [[3, Clip(3, 2, 2), 4], [2, Clip(3, 2, 2), 5]]],
    ids=["no text between", "even rows"],
)
def test_more_prompts(rows: list[Any], attention: str) -> None:
    """Without any padding, sdpa is given no mask to begin with."""
    generates(rows, BOTH, attention)


@over_runs
@over_pipelines
def test_beams(case: Case, rows: str, attention: str) -> None:
    """What beams have found is scored as the biased model does."""
    (operators, turn), model, given = case, shared_model(attention), prompt(FIRST[rows])
    with tp.attach(model, with_mass(operators)):
        run = generate(model, given, num_beams=2, num_return_sequences=2, output_scores=True)
    truth = mass_oracle(model, given.repeated(2).answered(run.sequences[:, given.length :]), turn)
    wanted, lost = (scores(t, run.sequences, given.length) for t in (truth, without_bias(model, truth)))
    assert float((run.sequences_scores - wanted).abs().max()) < TOLERANCE
    assert float((run.sequences_scores - lost).abs().max()) > SEEN


def scores(truth: Oracle, sequences: torch.Tensor, start: int) -> torch.Tensor:
    """Mean log-probability of each row's answer."""
    found = []
    for row, ids in enumerate(sequences[:, start:]):
        steps = truth.at(row, range(start - 1, start - 1 + len(ids))).log_softmax(dim=1)
        found.append(steps.gather(1, ids[:, None]).mean())
    return torch.stack(found)


@over_runs
@over_pipelines
def test_generate_without_cache(case: Case, rows: str, attention: str) -> None:
    """Each step is a prefill of its own, so its rows see the mass before the cut in layers 0..N, answers included."""
    (operators, turn), model, given = case, shared_model(attention), prompt(FIRST[rows])
    with tp.attach(model, with_mass(operators)):
        run = generate(model, given, new=2, use_cache=False)
    for step, logits in enumerate(run.logits):
        now = given.answered(run.sequences[:, given.length : given.length + step]).as_one_prefill()
        agrees_only_with_bias(model, [logits], mass_oracle(model, now, turn), now.length - 1)


@pytest.mark.parametrize(("masked", "use_cache"), [(True, False), (False, True)])
@over_pipelines
def test_bare_forward(case: Case, masked: bool, use_cache: bool) -> None:
    """All logits of the shortened prompt, those of visual tokens included."""
    (operators, turn), model, given = case, shared_model(), prompt(FIRST["ragged"][:2] if masked else FIRST["one row"])
    inputs = given.inputs()
    if not masked:
        del inputs["attention_mask"]
    with tp.attach(model, with_mass(operators)) as session, torch.no_grad():
        out = model(**inputs, use_cache=use_cache)
    truth = mass_oracle(model, given, turn)
    reports(session, truth, given.length, cache_of(out))
    for row, columns in enumerate(session.report.kept):
        found = out.logits[row, out.logits.shape[1] - len(columns) :]
        assert float((found - truth.at(row, columns.tolist())).abs().max()) < TOLERANCE
    assert distance([out.logits[:, -1]], without_bias(model, truth), given.length - 1) > SEEN


def test_mass_none_adds_nothing() -> None:
    operators, turn = BOTH
    model, given = shared_model(), prompt(FIRST["ragged"])
    runs = []
    for pipeline in (tp.Pipeline(operators), tp.Pipeline(operators, mass=None)):  # pyright: ignore[reportCallIssue]
        with tp.attach(model, pipeline):
            runs.append(generate(model, given))
    assert all(torch.equal(a, b) for a, b in zip(runs[0].logits, runs[1].logits, strict=True))
    whole = given.answered(runs[0].sequences[:, given.length :])
    with_it, without = (mass_oracle(model, whole, turn.keeping(mass)) for mass in (True, False))
    agrees(runs[0].logits, without, given.length - 1)
    assert distance(runs[0].logits, with_it, given.length - 1) > SEEN
    assert {mass for row in held(cache_of(runs[0])) for mass in row.values()} == {1.0}
