# SPDX-License-Identifier: Apache-2.0
"""What ``attach`` takes and refuses, and what a long session holds on to."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from hf.compare import forwards, generate
from hf.prompts import Clip, prompt, shared_model
from hf.running import answers, state_of
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2ForCausalLM

import tokenprune as tp

PRUNE = tp.AttnPrune(layer=1, keep_ratio=0.5)
ONE = prompt([[5, Clip(2, 2, 2), 6]])


@pytest.mark.parametrize(
    ("given", "pipeline"),
    [
        (tp.Pipeline([PRUNE]), tp.Pipeline([PRUNE])),
        (PRUNE, tp.Pipeline([PRUNE])),
        (tp.STMerge(), tp.Pipeline([tp.STMerge()])),
        ([tp.STMerge(), PRUNE], tp.Pipeline([tp.STMerge(), PRUNE])),
        ((PRUNE,), tp.Pipeline([PRUNE])),
        ([], tp.Pipeline()),
        ("default", tp.preset("default")),
        ("baseline", tp.Pipeline()),
    ],
    ids=str,
)
def test_what_stands_for_a_pipeline(given: Any, pipeline: tp.Pipeline) -> None:
    with tp.attach(shared_model(), given) as session:
        assert session.pipeline == pipeline
        answers(shared_model(), ONE, new=1)
        assert session.report is not None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "pipeline must be a Pipeline, an operator, a sequence of operators or a preset's name"),
        (3, "pipeline must be a Pipeline"),
        (0.5, "pipeline must be a Pipeline"),
        (b"default", "pipeline must be a Pipeline"),
        ({"operator": "STMerge"}, "pipeline must be a Pipeline"),
        ({PRUNE}, "pipeline must be a Pipeline"),
        (tp.Pipeline, "pipeline must be a Pipeline"),
        (tp.KeyNormScore(), "pipeline must be a Pipeline"),
        (torch.nn.Linear(1, 1), "pipeline must be a Pipeline"),
        pytest.param(iter([PRUNE]), "pipeline must be a Pipeline", id="iterator"),
        (tp.STMerge, "pipeline must be a Pipeline"),
        (tp.AttnPrune, "pipeline must be a Pipeline"),
        (["default"], "must be an operator"),
        ([None], "must be an operator"),
        ([PRUNE, tp.STMerge()], "cannot follow an operator inside it"),
        ("", "preset must be one of conservative, default"),
        ("defualt", "did you mean 'default'?"),
        ("x" * 10**6, "preset must be one of"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_nothing_else_does(given: Any, said: str) -> None:
    before = state_of(shared_model())
    with pytest.raises(tp.InvalidValueError) as error:
        tp.attach(shared_model(), given)
    assert said in str(error.value)
    assert len(str(error.value)) < 500
    assert state_of(shared_model()) == before


@pytest.mark.parametrize("model", [None, "Qwen/Qwen2.5-VL-7B-Instruct", 3, [], torch.nn.Linear, tp.Pipeline()], ids=str)
def test_a_model_must_be_a_module(model: Any) -> None:
    with pytest.raises(tp.InvalidValueError, match=r"model must be a model \(torch\.nn\.Module\), got"):
        tp.attach(model, "default")


@pytest.mark.parametrize("count", [0, -1, True, 1.5, "8", None])
def test_reports_to_keep_must_be_a_number(count: Any) -> None:
    with pytest.raises(tp.InvalidValueError, match="keep_reports must be a whole number of at least 1"):
        tp.attach(shared_model(), "default", keep_reports=count)


@pytest.mark.parametrize(("keep", "left"), [({}, 8), ({"keep_reports": 2}, 2), ({"keep_reports": sys.maxsize + 1}, 10)])
def test_a_session_keeps_its_last_reports(keep: dict[str, int], left: int) -> None:
    with tp.attach(shared_model(), PRUNE, **keep) as session:
        seen: list[Any] = []
        for _ in range(10):
            answers(shared_model(), ONE, new=1)
            seen.append(session.report)
        assert session.reports == seen[-left:]
        gc.collect()
        assert len(session._active._turns) == 0  # with their caches


def test_of_earlier_turns_only_the_origins_are_remembered() -> None:
    model, seen = shared_model(), list[Any]()
    with tp.attach(model, PRUNE, keep_reports=1) as session:
        first = generate(model, ONE)
        talk, cache = ONE.answered(first.sequences[:, ONE.length :]), first.past_key_values
        for _ in range(3):
            seen.append(weakref.ref(session.report))
            talk, _ = forwards(model, talk.then([[2, Clip(2, 2, 2), 3]]), cache)
        gc.collect()
        assert [report() for report in seen] == [None, None, None]
        earlier = session.report._origins.earlier
        assert earlier.earlier.earlier.earlier is None


def refusal(model: torch.nn.Module) -> str:
    with pytest.raises(tp.NoAdapterError) as error:
        tp.attach(model, "default")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_model_without_its_language_head_is_told_the_class_to_load() -> None:
    said = refusal(shared_model().model)
    assert "Qwen2_5_VLModel" in said
    assert "AutoModelForImageTextToText" in said
    assert Qwen2_5_VLForConditionalGeneration.__name__ in said


def test_a_model_of_text_is_told_so() -> None:
    from transformers import Qwen2Config

    small = Qwen2Config(
        vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1,
    )  # fmt: skip
    assert "Qwen2ForCausalLM is no Qwen2.5-VL" in refusal(Qwen2ForCausalLM(small))
    assert "is no Qwen2.5-VL" in refusal(shared_model().model.language_model)


def test_two_models_in_one() -> None:
    assert "holds 2" in refusal(torch.nn.ModuleList([shared_model(), torch.nn.ModuleList([copy_of_head()])]))


def copy_of_head() -> torch.nn.Module:
    from qwen25vl.tiny import tiny_model

    return tiny_model(layers=1)
