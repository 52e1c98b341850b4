# SPDX-License-Identifier: Apache-2.0
"""Where attention mass cannot be carried it is refused by name before anything runs, or runs under sdpa if asked to."""

from __future__ import annotations

import copy
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from hf.compare import forwards, generate
from hf.flash import imitate_flash
from hf.mass_cases import (
    BOTH,
    FIRST,
    MERGE,
    TEXT_TURN,
    VIDEO_TURN,
    Case,
    agrees_only_with_bias,
    held,
    needs_mass,
    over_backends,
    over_pipelines,
    over_rows,
    with_mass,
)
from hf.mass_oracle import mass_oracle
from hf.names import CACHE, cache_of
from hf.prompts import Prompt, prompt, shared_model
from hf.running import contents, counted, same_contents

import tokenprune as tp
from tokenprune.errors import InvalidValueError, TokenPruneWarning, UnsupportedCacheError, UnsupportedModeError

pytestmark = needs_mass
FLASH = "flash_attention_2"
Flash = tuple[Callable[[], Any], Counter[str]]


@pytest.fixture
def flash(monkeypatch: pytest.MonkeyPatch) -> Flash:
    return imitate_flash(monkeypatch)


def backend(model: Any) -> str:
    return model.model.language_model.config._attn_implementation


def with_fallback(model: Any, pipeline: tp.Pipeline) -> tp.Session:
    return tp.attach(model, pipeline, fallback="sdpa")  # pyright: ignore[reportCallIssue]


@over_pipelines
def test_flash_is_refused_by_name(case: Case, flash: Flash) -> None:
    """When attaching or when the prefill begins."""
    get_model, calls = flash
    model, given = get_model(), prompt(FIRST["ragged"])
    with (
        counted(model) as ran,
        pytest.raises(UnsupportedModeError, match=FLASH),
        tp.attach(model, with_mass(case[0])),
    ):
        generate(model, given)
    assert (ran.count, sum(calls.values()), backend(model)) == (0, 0, FLASH)


def test_flash_chosen_inside_a_session_is_refused(flash: Flash) -> None:
    get_model, calls = flash
    model, given = get_model(), prompt(FIRST["one row"])
    config = model.model.language_model.config
    config._attn_implementation = "sdpa"
    with tp.attach(model, with_mass(BOTH[0])):
        generate(model, given)
        config._attn_implementation = FLASH
        with counted(model) as ran, pytest.raises(UnsupportedModeError, match=FLASH):
            generate(model, given)
    assert (ran.count, sum(calls.values())) == (0, 0)


@pytest.mark.parametrize("operators", [[], MERGE[0]], ids=["empty", "without mass"])
def test_flash_is_refused_for_a_cache_that_holds_mass(operators: list[Any], flash: Flash) -> None:
    """Whatever pipeline is attached, and whether a fallback would have helped the first turn."""
    get_model, calls = flash
    model = get_model()
    model.model.language_model.config._attn_implementation = "sdpa"
    said, cache = first_turn(model, "one row")
    before = contents(cache)
    model.model.language_model.config._attn_implementation = FLASH
    with tp.attach(model, tp.Pipeline(operators)), pytest.raises(UnsupportedModeError, match=FLASH):
        forwards(model, said.then(TEXT_TURN["one row"]), cache)
    assert sum(calls.values()) == 0
    assert same_contents(contents(cache), before)


def test_flash_without_mass_runs(flash: Flash) -> None:
    get_model, calls = flash
    with tp.attach(get_model(), tp.Pipeline(BOTH[0], mass=None)):  # pyright: ignore[reportCallIssue]
        generate(get_model(), prompt(FIRST["ragged"]))
    assert sum(calls.values()) > 0


@over_rows
@over_pipelines
def test_fallback_runs_under_sdpa_and_restores(case: Case, rows: str, flash: Flash) -> None:
    (get_model, calls), (operators, turn) = flash, case
    model, given = get_model(), prompt(FIRST[rows])
    with with_fallback(model, with_mass(operators)):
        run = generate(model, given, new=2)
        talk = given.answered(run.sequences[:, given.length :]).then(TEXT_TURN[rows])
        whole, steps = forwards(model, talk, cache_of(run), new=2)
    assert (backend(model), sum(calls.values())) == (FLASH, 0)
    agrees_only_with_bias(model, steps, mass_oracle(model, whole, turn), talk.length - 1)


def test_recommended_by_its_name_falls_back_and_says_so(flash: Flash) -> None:
    """By its name it is to run on every model; the pipeline itself is refused as any other."""
    get_model, calls = flash
    model = get_model()
    with pytest.warns(TokenPruneWarning, match=f"{FLASH}.* runs under 'sdpa'"), tp.attach(model, "recommended"):
        generate(model, prompt(FIRST["one row"]))
    assert (backend(model), sum(calls.values())) == (FLASH, 0)
    with pytest.raises(UnsupportedModeError, match=FLASH):
        tp.attach(model, tp.preset("recommended"))


def test_it_is_said_once(flash: Flash) -> None:
    model = flash[0]()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        for _ in range(2):
            with with_fallback(model, with_mass(BOTH[0])):
                generate(model, prompt(FIRST["one row"]))
    assert [line.category for line in said] == [TokenPruneWarning]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_fallback_restores_after_an_error(error: type[BaseException], flash: Flash) -> None:
    model = flash[0]()

    def fail(*args: Any) -> None:
        raise error

    handle = model.model.language_model.layers[2].register_forward_pre_hook(fail)
    with pytest.raises(error), with_fallback(model, with_mass(BOTH[0])):
        generate(model, prompt(FIRST["one row"]))
    handle.remove()
    assert backend(model) == FLASH


def test_fallback_is_not_used_where_no_mass_is_kept(flash: Flash) -> None:
    get_model, calls = flash
    with with_fallback(get_model(), tp.Pipeline(BOTH[0])):
        generate(get_model(), prompt(FIRST["one row"]))
    assert sum(calls.values()) > 0


@over_backends
def test_fallback_leaves_what_carries_mass(attention: str) -> None:
    model, seen = shared_model(attention), []
    with with_fallback(model, with_mass(BOTH[0])):
        layer = model.model.language_model.layers[2]
        handle = layer.register_forward_pre_hook(lambda *_: seen.append(backend(model)))
        generate(model, prompt(FIRST["one row"]))
        handle.remove()
    assert set(seen) == {attention} == {backend(model)}


@pytest.mark.parametrize("wrong", ["flash_attention_2", "", 1, True])
def test_other_fallbacks_are_refused(wrong: Any) -> None:
    model = shared_model()
    with pytest.raises(InvalidValueError, match="fallback"):
        tp.attach(model, with_mass(BOTH[0]), fallback=wrong)  # pyright: ignore[reportCallIssue]
    tp.attach(model, with_mass(BOTH[0])).detach()  # nothing was left behind


def first_turn(model: Any, rows: str) -> tuple[Prompt, Any]:
    given = prompt(FIRST[rows])
    with tp.attach(model, with_mass(BOTH[0])):
        run = generate(model, given, new=2)
    return given.answered(run.sequences[:, given.length :]), cache_of(run)


@over_rows
def test_a_cache_with_mass_needs_a_session(rows: str) -> None:
    """Also where rows are equally long, which a cache without mass would not mind; copies and moved rows refuse too."""
    model = shared_model()
    said, cache = first_turn(model, rows)
    assert max(mass for row in held(cache) for mass in row.values()) > 1
    moved = copy.deepcopy(cache)
    moved.reorder_cache(torch.arange(len(said.ids)).flip(0))
    talk = said.then(TEXT_TURN[rows])
    for one in (cache, copy.deepcopy(cache), moved):
        before = contents(one)
        with counted(model) as ran, pytest.raises(UnsupportedCacheError, match="session"):
            generate(model, talk, **{CACHE: one}, **{name: None for name in talk.inputs() if "pixel" in name})
        with pytest.raises(UnsupportedCacheError, match="session"), torch.no_grad():
            model(input_ids=torch.full((len(said.ids), 1), 5), **{CACHE: one})
        assert same_contents(contents(one), before)
        assert ran.count <= 1  # no layer has run: the library asks the cache before it runs one
    with tp.attach(model, tp.Pipeline()):
        forwards(model, talk, cache, new=1)
    with pytest.raises(UnsupportedCacheError, match="session"), torch.no_grad():
        model(input_ids=torch.full((len(said.ids), 1), 5), **{CACHE: cache})


@over_rows
@pytest.mark.parametrize("press", [tp.KNorm(keep=3), tp.SnapKV(keep=3)], ids=lambda press: type(press).__name__)
def test_a_cache_with_mass_is_not_pressed(press: Any, rows: str) -> None:
    """Nor is a turn without a video, in which a press has nothing to do, refused."""
    model = shared_model()
    said, cache = first_turn(model, rows)
    before = contents(cache)
    with tp.attach(model, press):
        with pytest.raises(UnsupportedModeError, match=f"{type(press).__name__} cannot press"):
            forwards(model, said.then(VIDEO_TURN[rows]), cache)
        assert same_contents(contents(cache), before)
        forwards(model, said.then(TEXT_TURN[rows]), cache)


def test_after_the_session_a_plain_prompt_is_plain() -> None:
    """Nothing of the last step's bias is left for a forward outside, nor for one without visual tokens inside."""
    model, text = shared_model(), torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        plain = model(input_ids=text).logits
        with tp.attach(model, with_mass(BOTH[0])):
            generate(model, prompt(FIRST["one row"]))
            model.model.rope_deltas = None
            assert torch.equal(model(input_ids=text).logits, plain)
        model.model.rope_deltas = None
        assert torch.equal(model(input_ids=text).logits, plain)
