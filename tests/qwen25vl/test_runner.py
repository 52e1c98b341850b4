# SPDX-License-Identifier: Apache-2.0
"""One timed answer: the model's own, with times that add up, and the model as it was afterwards."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("torchvision")
pytest.importorskip("av")

from qwen25vl.tiny import save_tiny, tiny_model, tiny_processor

import tokenprune as tp
from tokenprune.answers import ClipQuestion
from tokenprune.hf.frontend.family import Loaded
from tokenprune.hf.frontend.runner import FamilyModel
from tokenprune_qwen25vl.chat import Conversation, model_inputs
from tokenprune_qwen25vl.loading import load, why_not
from tokenprune_qwen25vl.parts import require_parts
from tokenprune_qwen25vl.runner import QwenRunner, answer
from tokenprune_qwen25vl.video import load_clip

BUNNY = Path(__file__).parents[1] / "data" / "bigbuckbunny.mp4"
PRUNING = tp.Pipeline([tp.AttnPrune(layer=1, keep=3)])


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


@pytest.fixture(scope="module")
def inputs() -> dict[str, torch.Tensor]:
    return model_inputs(tiny_processor(), [Conversation("What moves?", (load_clip(BUNNY, frames=8),))])


def hooks_of(model: Any) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_the_models_own_answer(model: Any, inputs: dict[str, torch.Tensor]) -> None:
    got = answer(model, tiny_processor(), inputs, None, 12)
    expected = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert list(got.token_ids) == expected.tolist()
    assert got.text == tiny_processor().tokenizer.decode(expected, skip_special_tokens=True).strip()
    assert got.report is None
    assert len(set(got.token_ids)) > 1  # a model that repeats one token would prove nothing


def test_a_pipeline_is_attached_for_one_call(model: Any, inputs: dict[str, torch.Tensor]) -> None:
    before, plain = hooks_of(model), answer(model, tiny_processor(), inputs, None, 12)
    pruned = answer(model, tiny_processor(), inputs, PRUNING, 12)
    assert pruned.report is not None
    assert pruned.report.to_dict()["stages"][0]["visual_after"] == [3]
    assert pruned.token_ids != plain.token_ids
    assert hooks_of(model) == before
    assert answer(model, tiny_processor(), inputs, None, 12).token_ids == plain.token_ids
    assert answer(model, tiny_processor(), inputs, tp.Pipeline(), 12).token_ids == plain.token_ids


def test_times_add_up(model: Any, inputs: dict[str, torch.Tensor]) -> None:
    answer(model, tiny_processor(), inputs, None, 2)
    nap = model.model.visual.register_forward_pre_hook(lambda *_: time.sleep(0.2))
    slow = model.model.language_model.layers[0].register_forward_pre_hook(lambda *_: time.sleep(0.05))
    try:
        start = time.perf_counter()
        got = answer(model, tiny_processor(), inputs, None, 4)
        whole = time.perf_counter() - start
    finally:
        nap.remove()
        slow.remove()
    steps = len(got.token_ids) - 1
    assert steps >= 1
    assert got.prefill_seconds >= 0.05
    assert got.decode_seconds >= 0.05 * steps
    assert got.vision_seconds + got.prefill_seconds + got.decode_seconds <= whole
    assert got.vision_seconds + got.prefill_seconds >= 0.25


def test_hooks_are_off_after_an_error(model: Any, inputs: dict[str, torch.Tensor]) -> None:
    before = hooks_of(model)
    broken = model.lm_head.register_forward_pre_hook(lambda *_: 1 / 0)
    try:
        with pytest.raises(ZeroDivisionError):
            answer(model, tiny_processor(), inputs, PRUNING, 4)
    finally:
        broken.remove()
    assert hooks_of(model) == before
    assert answer(model, tiny_processor(), inputs, PRUNING, 2).report is not None


def test_one_prompt_and_at_least_one_token(model: Any, inputs: dict[str, torch.Tensor]) -> None:
    clip = load_clip(BUNNY, frames=2)
    two = model_inputs(tiny_processor(), [Conversation("a", (clip,)), Conversation("b", (clip,))])
    with pytest.raises(tp.InvalidValueError, match="one prompt"):
        answer(model, tiny_processor(), two)
    for count in (0, -1, True, 1.5):
        with pytest.raises(tp.InvalidValueError, match="max_new_tokens"):
            answer(model, tiny_processor(), inputs, None, count)


def test_inputs_stay_as_they_were(model: Any, inputs: dict[str, torch.Tensor]) -> None:
    before = {name: value.clone() for name, value in inputs.items()}
    answer(model, tiny_processor(), inputs, PRUNING, 3)
    assert before.keys() == inputs.keys()
    assert all(torch.equal(before[name], inputs[name]) for name in before)


def test_a_checkpoint_is_loaded_as_it_was_saved(model: Any, inputs: dict[str, torch.Tensor], tmp_path: Path) -> None:
    saved = save_tiny(tmp_path / "tiny")
    assert why_not(str(saved)) is None
    loaded, processor = load(saved, device="cpu", attn_implementation="eager")
    assert loaded.config._attn_implementation == "eager"
    assert loaded.dtype == torch.float32
    assert not loaded.training
    assert (
        answer(loaded, processor, inputs, None, 8).token_ids
        == answer(model, tiny_processor(), inputs, None, 8).token_ids
    )
    assert load(saved, device="cpu", dtype=torch.bfloat16)[0].dtype == torch.bfloat16


def test_the_runner_answers_from_a_file(tmp_path: Path) -> None:
    runner = QwenRunner()
    loaded = runner.load(str(save_tiny(tmp_path / "tiny")), "cpu", None, None)
    prepared = loaded.prepare(ClipQuestion(str(BUNNY), "What?", frames=6))
    assert (prepared.frames, prepared.sampled_fps) == (6, pytest.approx(6 / 66 * 12.5))
    assert loaded.answer(prepared, PRUNING, 3).report is not None
    with pytest.raises(tp.InvalidValueError, match="prepare"):
        loaded.answer(object(), None, 3)  # type: ignore[arg-type]


def test_a_clip_encoded_before_answers_the_same(model: Any) -> None:
    loaded = FamilyModel(Loaded(model, tiny_processor(), require_parts(model)))
    prepared = loaded.prepare(ClipQuestion(str(BUNNY), "What?", frames=6))
    encoded = loaded.encoded(prepared)
    looks: list[int] = []
    handle = model.model.visual.patch_embed.register_forward_pre_hook(lambda _, args: looks.append(len(args[0])))
    try:
        for pipeline in (None, PRUNING):
            again = loaded.answer(encoded, pipeline, 8)
            assert looks == [4]  # one visual token, for form
            assert again.token_ids == loaded.answer(prepared, pipeline, 8).token_ids
            looks.clear()
    finally:
        handle.remove()
    assert (encoded.frames, encoded.sampled_fps) == (prepared.frames, prepared.sampled_fps)
