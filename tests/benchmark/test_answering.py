# SPDX-License-Identifier: Apache-2.0
"""Looking once and answering in batches changes no answer; renumbering changes positions and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("torchvision")

from qwen25vl.tiny import tiny_model, tiny_processor

import tokenprune as tp
from tokenprune.bench.world import FPS, HELD_OUT, Clip, sample
from tokenprune.bench.world_benchmark import answering
from tokenprune.bench.world_benchmark.answering import NEW_TOKENS, Seen, answer, see, together
from tokenprune.hf.frontend.family import Loaded
from tokenprune_qwen25vl.chat import Conversation, model_inputs
from tokenprune_qwen25vl.parts import require_parts
from tokenprune_qwen25vl.video import VideoClip

BOTH = tp.Pipeline([tp.STMerge(keep_ratio=0.5), tp.AttnPrune(layer=1, keep_ratio=0.5)])


def loaded(model: Any) -> Loaded:
    return Loaded(model, tiny_processor(), require_parts(model))


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


@pytest.fixture(scope="module")
def clip() -> Clip:
    return sample(HELD_OUT)


@pytest.fixture(scope="module")
def seen(model: Any, clip: Clip) -> Seen:
    return see(loaded(model), as_video(clip), [question.text for question in clip.questions])


def as_video(clip: Clip) -> VideoClip:
    return VideoClip.from_frames(clip.frames, FPS)


@pytest.mark.parametrize("pipeline", [None, BOTH], ids=["plain", "both"])
def test_the_same_answers_as_one_by_one_with_all_pixels(
    model: Any, clip: Clip, seen: Seen, pipeline: tp.Pipeline | None
) -> None:
    answers = answer(loaded(model), seen, pipeline)
    assert len(set(answers.texts)) > 1  # or this model could not tell
    for question, text in zip(clip.questions, answers.texts):
        inputs: dict[str, Any] = model_inputs(tiny_processor(), [Conversation(question.text, (as_video(clip),))])
        with tp.attach(model, tp.Pipeline() if pipeline is None else pipeline):
            output = model.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False)
        new = output[0, inputs["input_ids"].shape[1] :]
        assert tiny_processor().tokenizer.decode(new, skip_special_tokens=True) == text


def test_answers_are_told_from_their_first_token_on(model: Any, seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = answer(loaded(model), seen, BOTH)
    assert whole.texts == tuple(begun[-1] for begun in whole.begun)
    for length in range(1, NEW_TOKENS):
        monkeypatch.setattr(answering, "NEW_TOKENS", length)
        assert answer(loaded(model), seen, BOTH).texts == tuple(begun[length - 1] for begun in whole.begun)


def test_the_clip_is_looked_at_once(model: Any, clip: Clip) -> None:
    patches: list[int] = []
    handle = model.model.visual.register_forward_pre_hook(lambda module, args: patches.append(len(args[0])))
    try:
        seen = see(loaded(model), as_video(clip), ["What?", "And what else?"])
        whole = patches.pop()
        answer(loaded(model), seen)
        answer(loaded(model), seen, BOTH)
    finally:
        handle.remove()
    assert whole == 4 * len(seen.features[0])
    assert all(count == 4 for count in patches)


@pytest.mark.parametrize("pipeline", [None, BOTH], ids=["plain", "both"])
def test_clips_together_are_answered_as_each_alone(model: Any, seen: Seen, pipeline: tp.Pipeline | None) -> None:
    other = sample(HELD_OUT + 1)
    texts = [question.text for question in other.questions][:3]
    alone = [seen, see(loaded(model), as_video(other), [*texts, "And what, if anything, is not to be seen here?"])]
    both = together(loaded(model), alone)
    assert len({len(each.inputs["input_ids"][0]) for each in alone}) == 2  # or nothing had to be padded
    answers = answer(loaded(model), both, pipeline)
    expected = [answer(loaded(model), each, pipeline) for each in alone]
    assert answers.texts == sum((each.texts for each in expected), ())
    assert answers.budgets == pytest.approx(sum((each.budgets for each in expected), ()))


def test_nothing_is_left_on_the_model(model: Any, seen: Seen) -> None:
    before = answer(loaded(model), seen)
    answer(loaded(model), seen, BOTH, "renumbered")
    hooks = [h for m in model.modules() for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
    assert hooks == []
    assert answer(loaded(model), seen) == before


def test_unseen_is_another_clip(model: Any, seen: Seen) -> None:
    blind, sighted = (answer(loaded(model), shown).texts for shown in (seen.unseen(), seen))
    assert blind != sighted
    assert not torch.cat(seen.unseen().features).any()


def test_budgets_are_those_of_the_report(model: Any, seen: Seen) -> None:
    tokens, rows = len(seen.features[0]), len(seen.inputs["input_ids"])
    first = -(-tokens // 2)
    second = -(-first // 2)
    budget = (2 * first + 2 * second) / (4 * tokens)
    answers = answer(loaded(model), seen, BOTH)
    assert answers.budgets == pytest.approx([budget] * rows)
    assert answers.retained == pytest.approx([second / tokens] * rows)


def test_renumbered_prompts_are_counted_without_gaps(model: Any, seen: Seen) -> None:
    given: list[torch.Tensor] = []

    handle = model.model.language_model.rotary_emb.register_forward_hook(
        lambda module, args, kwargs, output: given.append(kwargs.get("position_ids", args[-1]).clone()),
        with_kwargs=True,
    )
    try:
        answer(loaded(model), seen, tp.Pipeline([tp.STMerge(keep_ratio=0.25)]), "renumbered")
    finally:
        handle.remove()
    prompt, *decoded = given
    rows, tokens = len(seen.inputs["input_ids"]), len(seen.features[0])
    lengths = seen.inputs["attention_mask"].sum(1) - tokens + -(-tokens // 4)
    assert prompt.shape == (3, rows, int(lengths.max()))
    for row, length in enumerate(lengths.tolist()):
        assert prompt[:, row, -length:].tolist() == [list(range(length))] * 3
        for step, positions in enumerate(decoded):
            assert positions[:, row, 0].tolist() == [length + step] * 3
