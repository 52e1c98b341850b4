# SPDX-License-Identifier: Apache-2.0
"""One run: the plain model is plain, operators are inside the prefill, the cache is what the formula says."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("torchvision")
pytest.importorskip("av")

from qwen25vl.tiny import LAYERS
from speed.qwen_bench import bench, first_logits, hooks_of, model

import tokenprune as tp
from tokenprune.bench.model_speed.decoder_sizes import decoder_shape
from tokenprune.bench.model_speed.runs import Bench, run_pipeline, run_plain, run_vision, timed_answer
from tokenprune.bench.speed.arithmetic import kv_bytes
from tokenprune.errors import AlreadyAttachedError
from tokenprune.hf.frontend.features import encoded_before
from tokenprune.plan import TokenPlan
from tokenprune.tokens import VisualTokens

NAP = 0.05
PIPELINES = {
    "default": tp.Pipeline([tp.STMerge(), tp.AttnPrune(layer=1, keep_ratio=0.5)]),
    "last layer": tp.Pipeline([tp.AttnPrune(layer=LAYERS - 1, keep=4)]),
    "baseline": tp.Pipeline(),
}


@dataclass(frozen=True)
class Sleepy:
    """A merger that takes its time; it halves the clip."""

    def plan(self, tokens: VisualTokens) -> TokenPlan:
        time.sleep(NAP)
        return TokenPlan.keeping(torch.arange(0, len(tokens), 2), len(tokens))


@dataclass(frozen=True)
class SleepyScorer:
    """A scorer that takes its time."""

    reads_attention = False

    def score(self, tokens: Any) -> torch.Tensor:
        time.sleep(NAP)
        return torch.arange(len(tokens), dtype=torch.float32)


class Recorder:
    """What the model's head saw: is a session attached, and which tokens were decoded."""

    def __init__(self, made: Bench) -> None:
        self.model = made.parts.model
        self.attached: set[bool] = set()
        self.handle = self.model.lm_head.register_forward_pre_hook(self.look)

    def look(self, *_: Any) -> None:
        try:
            tp.attach(self.model, tp.Pipeline()).detach()
            self.attached.add(False)
        except AlreadyAttachedError:
            self.attached.add(True)


@pytest.mark.parametrize("name", [None, *PIPELINES])
def test_only_pipelines_run_in_a_session(name: str | None) -> None:
    made, before = bench(), hooks_of(model())
    recorder = Recorder(made)
    try:
        if name is None:
            run_plain(made)
        else:
            run_pipeline(made, PIPELINES[name])
    finally:
        recorder.handle.remove()
    assert recorder.attached == {name is not None}
    assert hooks_of(model()) == before


def test_operators_are_inside_the_prefill() -> None:
    made = bench()
    pipeline = tp.Pipeline([Sleepy(), tp.AttnPrune(layer=1, keep=3, scorer=SleepyScorer())])
    sample, facts = run_pipeline(made, pipeline)
    assert [stage["operator"] for stage in facts.stages] == ["Sleepy", "AttnPrune"]
    assert min(sample["operator_0_seconds"], sample["operator_1_seconds"]) >= NAP
    assert sample["llm_prefill_seconds"] >= sample["operator_0_seconds"] + sample["operator_1_seconds"]
    assert sample["first_token_seconds"] >= sample["llm_prefill_seconds"]
    assert sample["whole_seconds"] >= sample["first_token_seconds"]


def test_the_tower_is_not_in_the_times() -> None:
    made = bench()
    nap = made.parts.tower.patch_embed.register_forward_pre_hook(lambda *_: time.sleep(5 * NAP))
    layers = [layer.register_forward_pre_hook(lambda *_: time.sleep(NAP / 5)) for layer in made.parts.text.layers[:1]]
    try:
        start = time.perf_counter()
        sample, _ = run_plain(made)
        whole = time.perf_counter() - start
        seen = run_vision(made)
    finally:
        for handle in (nap, *layers):
            handle.remove()
    assert sample["whole_seconds"] + 5 * NAP <= whole
    assert sample["whole_seconds"] >= 4 * NAP / 5
    assert sample["llm_prefill_seconds"] >= NAP / 5
    assert seen["seconds"] >= 5 * NAP


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", [None, *PIPELINES])
def test_kv_bytes_are_those_of_the_formula(name: str | None, batch: int) -> None:
    made = bench(batch)
    if name is None:
        _, facts = run_plain(made)
        assert facts.layer_tokens == [[made.prompt.length] * batch] * LAYERS
    else:
        _, facts = run_pipeline(made, PIPELINES[name])
    assert facts.kv_bytes == kv_bytes(decoder_shape(made.parts.text), batch, facts.longest, 4)
    assert (facts.longest < made.prompt.length) == (name in ("default", "last layer"))


def test_a_ragged_batch_really_is_one() -> None:
    _, facts = run_pipeline(bench(2), PIPELINES["default"])
    assert facts.layer_tokens[0][0] != facts.layer_tokens[0][1]
    assert facts.longest == max(facts.layer_tokens[-1])


def test_facts_are_those_of_the_report() -> None:
    made = bench(2)
    with (
        tp.attach(made.parts.model, PIPELINES["default"]) as session,
        encoded_before(made.parts.tower, made.prompt.features),
    ):
        made.parts.model.generate(**made.prompt.inputs(), max_new_tokens=1, do_sample=False)
    _, facts = run_pipeline(made, PIPELINES["default"])
    assert session.report is not None
    assert facts.kv_bytes == session.report.kv_bytes
    assert facts.layer_tokens == session.report.layer_tokens


def test_so_many_tokens_whatever_the_model_says() -> None:
    """The first answer of the model is made its end of sequence."""
    made = bench(2, new_tokens=5)
    first = first_logits(made).argmax(-1)
    steps: list[int] = []
    handle = made.parts.text.register_forward_pre_hook(
        lambda _, args, kwargs: steps.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    generation: Any = made.parts.model.generation_config
    before = generation.eos_token_id
    generation.eos_token_id = sorted(set(first.tolist()))
    try:
        run_plain(made)
    finally:
        handle.remove()
        generation.eos_token_id = before
    assert steps == [made.prompt.length, 1, 1, 1, 1, 1]


def test_decode_tokens_of_all_rows_after_the_first() -> None:
    made = bench(2, new_tokens=4)
    nap = made.parts.text.layers[0].register_forward_pre_hook(lambda *_: time.sleep(NAP))
    try:
        sample, _ = run_plain(made)
    finally:
        nap.remove()
    assert sample["decode_tokens_per_second"] <= 2 * 4 / (4 * NAP)
    decoded = 2 * 4 / sample["decode_tokens_per_second"]
    assert sample["whole_seconds"] == pytest.approx(sample["first_token_seconds"] + decoded)


def test_a_way_that_cannot_be_opened_leaves_nothing() -> None:
    made, before = bench(), hooks_of(model())
    broken = made.parts.model.lm_head.register_forward_pre_hook(lambda *_: 1 / 0)
    try:
        with pytest.raises(ZeroDivisionError):
            timed_answer(made, tp.attach(made.parts.model, PIPELINES["default"]))
    finally:
        broken.remove()
    assert hooks_of(model()) == before
    run_plain(made)
