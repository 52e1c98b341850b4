# SPDX-License-Identifier: Apache-2.0
"""Attention mass lives with the cache: later turns see it, whatever is attached, wherever the cache was moved to."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from hf.compare import agrees, distance, forwards, generate
from hf.mass_cases import (
    BOTH,
    FIRST,
    PIXELS,
    SEEN,
    SELECT,
    TEXT_TURN,
    TWICE,
    VIDEO_TURN,
    Case,
    agrees_only_with_bias,
    held,
    holds,
    needs_mass,
    over_backends,
    over_pipelines,
    over_rows,
    over_runs,
    with_mass,
)
from hf.mass_oracle import PLAIN, Turn, mass_oracle, without_bias
from hf.names import CACHE, cache_of
from hf.prompts import Prompt, prompt, shared_model

import tokenprune as tp

pytestmark = needs_mass
TURNS = {"text": TEXT_TURN, "video": VIDEO_TURN}


def first_turn(model: Any, rows: str, pipeline: tp.Pipeline) -> tuple[Prompt, Any]:
    """What has been said after a first turn, and its cache."""
    given = prompt(FIRST[rows])
    with tp.attach(model, pipeline):
        run = generate(model, given, new=2)
    return given.answered(run.sequences[:, given.length :]), cache_of(run)


@over_backends
@over_rows
@over_pipelines
def test_text_turn(case: Case, rows: str, attention: str) -> None:
    (operators, turn), model = case, shared_model(attention)
    said, cache = first_turn(model, rows, with_mass(operators))
    talk = said.then(TEXT_TURN[rows])
    with tp.attach(model, with_mass(operators)):
        whole, steps = forwards(model, talk, cache, new=2)
    truth = mass_oracle(model, whole, turn)
    agrees_only_with_bias(model, steps, truth, talk.length - 1)
    holds(cache, truth, whole.length - 1)


@over_rows
def test_text_turn_by_generate(rows: str) -> None:
    (operators, turn), model = BOTH, shared_model()
    said, cache = first_turn(model, rows, with_mass(operators))
    talk = said.then(TEXT_TURN[rows])
    with tp.attach(model, with_mass(operators)):
        second = generate(model, talk, **{CACHE: cache}, **dict.fromkeys(PIXELS))
    truth = mass_oracle(model, talk.answered(second.sequences[:, talk.length :]), turn)
    agrees_only_with_bias(model, second.logits, truth, talk.length - 1)


def test_text_turn_without_mask() -> None:
    (operators, turn), model = BOTH, shared_model()
    said, cache = first_turn(model, "one row", with_mass(operators))
    talk = said.then(TEXT_TURN["one row"])
    with tp.attach(model, with_mass(operators)):
        whole, steps = forwards(model, talk, cache, masked=False)
    agrees_only_with_bias(model, steps, mass_oracle(model, whole, turn), talk.length - 1)


@over_runs
@over_pipelines
def test_video_turn(case: Case, rows: str, attention: str) -> None:
    """The new video is cut in its turn, and scored by a softmax in which the earlier one has its mass."""
    (operators, turn), model = case, shared_model(attention)
    said, cache = first_turn(model, rows, with_mass(operators))
    talk = said.then(VIDEO_TURN[rows])
    with tp.attach(model, with_mass(operators)):
        whole, steps = forwards(model, talk, cache, new=2)
    truth = mass_oracle(model, whole, turn)
    agrees(steps, truth, talk.length - 1)
    for old_or_new in ((0, said.length), (said.length, talk.length)):
        assert distance(steps, without_bias(model, truth, *old_or_new), talk.length - 1) > SEEN
    holds(cache, truth, whole.length - 1)


@over_backends
@over_pipelines
def test_a_copy_goes_on(case: Case, attention: str) -> None:
    (operators, turn), model = case, shared_model(attention)
    said, cache = first_turn(model, "ragged", with_mass(operators))
    copied, talk = copy.deepcopy(cache), said.then(TEXT_TURN["ragged"])
    with tp.attach(model, with_mass(operators)):
        whole, steps = forwards(model, talk, cache, new=2)
        again, others = forwards(model, talk, copied, new=2)
    assert torch.equal(whole.ids, again.ids)
    assert all(torch.equal(a, b) for a, b in zip(steps, others, strict=True))
    agrees_only_with_bias(model, others, mass_oracle(model, whole, turn), talk.length - 1)


SECOND: dict[str, tuple[list[Any], str | None, Turn]] = {
    "empty": ([], None, PLAIN),
    "empty with mass": ([], "sizes", PLAIN),
    "without mass": (SELECT[0], None, SELECT[1].keeping(False)),
    "with mass": (TWICE[0], "sizes", TWICE[1]),
}


@over_backends
@pytest.mark.parametrize("parts", TURNS)
@pytest.mark.parametrize("then", SECOND)
def test_another_pipeline_is_attached(then: str, parts: str, attention: str) -> None:
    model, (operators, mass, second) = shared_model(attention), SECOND[then]
    said, cache = first_turn(model, "ragged", with_mass(BOTH[0]))
    talk = said.then(TURNS[parts]["ragged"])
    with tp.attach(model, tp.Pipeline(operators, mass=mass)):  # pyright: ignore[reportCallIssue]
        whole, steps = forwards(model, talk, cache, new=2)
    truth = mass_oracle(model, whole, BOTH[1], second)
    agrees_only_with_bias(model, steps, truth, talk.length - 1)
    holds(cache, truth, whole.length - 1)


@over_rows
def test_mass_begins_with_the_second_turn(rows: str) -> None:
    """What was cut without mass has none later; the new video has its own."""
    model = shared_model()
    said, cache = first_turn(model, rows, tp.Pipeline(BOTH[0]))
    talk = said.then(VIDEO_TURN[rows])
    with tp.attach(model, with_mass(BOTH[0])):
        whole, steps = forwards(model, talk, cache, new=2)
    truth = mass_oracle(model, whole, BOTH[1].keeping(False), BOTH[1])
    agrees_only_with_bias(model, steps, truth, talk.length - 1)
    holds(cache, truth, whole.length - 1)


@pytest.mark.parametrize(
    ("move", "rows"),
    [
        (lambda cache: cache.reorder_cache(torch.tensor([2, 0, 1])), [2, 0, 1]),
        (lambda cache: cache.batch_repeat_interleave(2), [0, 0, 1, 1, 2, 2]),
        (lambda cache: cache.batch_select_indices(torch.tensor([2, 0])), [2, 0]),
    ],
    ids=["reorder", "repeat", "select"],
)
def test_rows_of_the_cache_are_moved(move: Any, rows: list[int]) -> None:
    model = shared_model()
    said, cache = first_turn(model, "ragged", with_mass(BOTH[0]))
    move(cache)
    talk = said.taken(rows)
    with tp.attach(model, with_mass(BOTH[0])):
        for number, parts in enumerate([TEXT_TURN["ragged"], VIDEO_TURN["ragged"]]):
            talk = talk.then([parts[row] for row in rows], seed=number + 2)
            asked = talk.length
            talk, steps = forwards(model, talk, cache, new=2)
            truth = mass_oracle(model, talk, BOTH[1])
            agrees_only_with_bias(model, steps, truth, asked - 1)
            holds(cache, truth, talk.length - 1)


@over_pipelines
def test_answers_are_cropped(case: Case) -> None:
    """Another question to the same video: the cache is cropped to the first prompt."""
    (operators, turn), model = case, shared_model()
    said, cache = first_turn(model, "ragged", with_mass(operators))
    cache.crop(-1)
    given = prompt(FIRST["ragged"])
    assert (said.length, cache.get_seq_length()) == (given.length + 2, given.length)
    asked = given.then(TEXT_TURN["ragged"], seed=5)
    with tp.attach(model, with_mass(operators)):
        whole, steps = forwards(model, asked, cache, new=2)
    agrees_only_with_bias(model, steps, mass_oracle(model, whole, turn), asked.length - 1)


def test_a_reset_cache_holds_no_mass() -> None:
    model = shared_model()
    _, cache = first_turn(model, "one row", with_mass(BOTH[0]))
    assert max(held(cache)[0].values()) > 1
    cache.reset()
    with torch.no_grad():
        text = torch.tensor([[5, 6, 7]])
        found = model(input_ids=text, **{CACHE: cache}).logits
        assert torch.equal(found, model(input_ids=text).logits)
