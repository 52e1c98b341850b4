# SPDX-License-Identifier: Apache-2.0
"""A clip's cache is pressed before it is asked about: answers are those of a model that never sees what was lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("torchvision")

from qwen25vl.tiny import tiny_model, tiny_processor

import tokenprune as tp
from tokenprune.bench.benchmark import BenchmarkRequest, MethodGrid
from tokenprune.bench.world import FPS, HELD_OUT, sample
from tokenprune.bench.world_benchmark.answering import NEW_TOKENS, Seen, answer, see
from tokenprune.bench.world_benchmark.entries import Pressed
from tokenprune.bench.world_benchmark.pressed import answer_pressed
from tokenprune.bench.world_benchmark.run import Decoder, build_suite
from tokenprune.hf.frontend.family import Loaded
from tokenprune_qwen25vl.parts import require_parts
from tokenprune_qwen25vl.video import VideoClip


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    model = tiny_model()
    return Loaded(model, tiny_processor(), require_parts(model))


@pytest.fixture(scope="module")
def seen(loaded: Loaded) -> Seen:
    clip = sample(HELD_OUT)
    questions = [question.text for question in clip.questions]
    assert len({len(each.split()) for each in questions}) > 1  # so that the batch is padded
    return see(loaded, VideoClip.from_frames(clip.frames, FPS), questions)


@dataclass(frozen=True)
class FirstOnes:
    """Keeps the first tokens in every layer, and counts the text rows it was shown."""

    keep: int
    site: ClassVar[str] = "after_prefill"
    needs: ClassVar[tuple[str, ...]] = ("attention",)
    shown: ClassVar[list[int]] = []

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        self.shown.append(len(tokens.signals["attention"].queries()[0]))
        return tp.TokenPlan.keeping(torch.arange(min(self.keep, len(tokens))), len(tokens))


def masked_answer(loaded: Loaded, seen: Seen, row: int, keep: int) -> str:
    """What the whole model answers, from one prompt without a cache, if later tokens cannot see the lost columns."""
    real = seen.inputs["attention_mask"][row].bool()
    ids, types = (seen.inputs[name][row][real] for name in ("input_ids", "mm_token_type_ids"))
    visual = types.nonzero().squeeze(1)
    blocked, lost = int(visual[-1]) + 2, visual[keep:]

    def hide(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        length = kwargs["hidden_states"].shape[1] if "hidden_states" in kwargs else args[0].shape[1]
        allowed = torch.ones(length, length, dtype=torch.bool).tril()
        allowed[blocked:, lost] = False
        return args, {**kwargs, "attention_mask": torch.where(allowed, 0.0, torch.finfo(torch.float32).min)[None, None]}

    handles = [layer.register_forward_pre_hook(hide, with_kwargs=True) for layer in loaded.parts.text.layers]
    one = {name: seen.inputs[name][:1] for name in ("video_grid_thw", "second_per_grid_ts") if name in seen.inputs}
    features = seen.features[row]
    try:
        for _ in range(NEW_TOKENS):
            kinds = torch.cat([types, types.new_zeros(len(ids) - len(types))])
            embeds = loaded.parts.text.embed_tokens(ids)
            embeds[visual] = features.to(embeds)
            places, _ = loaded.parts.prompt.get_rope_index(ids[None], kinds[None], **one)
            states = loaded.parts.text(inputs_embeds=embeds[None], position_ids=places, use_cache=False)
            new = loaded.model.lm_head(states.last_hidden_state[0, -1]).argmax()
            ids = torch.cat([ids, new[None]])
    finally:
        for handle in handles:
            handle.remove()
    return str(loaded.processor.tokenizer.decode(ids[-NEW_TOKENS:], skip_special_tokens=True))


def test_answers_are_those_of_a_model_that_does_not_see_what_is_lost(loaded: Loaded, seen: Seen) -> None:
    FirstOnes.shown.clear()
    found = answer_pressed(loaded, seen, tp.Pipeline([FirstOnes(3)]))
    with torch.no_grad():
        assert list(found.texts) == [masked_answer(loaded, seen, row, keep=3) for row in range(len(found.texts))]
    assert found.texts != answer(loaded, seen).texts
    assert set(FirstOnes.shown) == {1}  # no word of any question
    count = len(seen.features[0])
    assert set(found.retained) == {3 / count}
    assert set(found.budgets) == {1.0}


@pytest.mark.parametrize("method", [tp.SnapKV, tp.TOVA, tp.KNorm, tp.InfiniPotV])
def test_keeping_all_is_the_plain_model(loaded: Loaded, seen: Seen, method: Any) -> None:
    found = answer_pressed(loaded, seen, tp.Pipeline([method(keep_ratio=1.0)]))
    assert found.begun == answer(loaded, seen).begun
    assert set(found.retained) == {1.0}


def test_rows_say_when_the_cache_was_pressed() -> None:
    suite = build_suite(BenchmarkRequest(methods=MethodGrid(("KNorm", "Cover"), (0.25,))), Decoder(192, 8))
    entry = suite.entries[1]
    assert isinstance(entry, Pressed)
    assert (entry.name, entry.series) == ("KNorm before the question at 25 %", "KNorm before the question")
    assert entry.pipeline == tp.Pipeline([tp.KNorm(keep_ratio=0.25)])
    assert [each.name for each in suite.entries[2:]] == ["Cover at 25 %", "Cover + mass at 25 %"]
