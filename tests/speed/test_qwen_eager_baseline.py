# SPDX-License-Identifier: Apache-2.0
"""The eager baseline hides what the pipeline removes, and leaves the model as it was."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("torchvision")
pytest.importorskip("av")

from qwen25vl.tiny import LAYERS
from speed.qwen_bench import bench, first_logits, hooks_of, model

import tokenprune as tp
from tokenprune.bench.model_speed.eager_baseline import cuts_of, masked_by_attention, run_eager_baseline
from tokenprune.bench.model_speed.runs import timed_answer
from tokenprune.budget import Budget


def attentions(attention: str) -> set[str]:
    return {module.config._attn_implementation for module in model(attention).modules() if hasattr(module, "config")}


@pytest.mark.parametrize("batch", [1, 2])
def test_the_first_token_is_that_of_the_pipeline(batch: int) -> None:
    made = bench(batch)
    pipeline = tp.Pipeline([tp.AttnPrune(layer=1, keep_ratio=0.3)])
    with tp.attach(made.parts.model, pipeline) as session:
        pruned = first_logits(made)
    with masked_by_attention(made.parts, made.prompt, cuts_of(pipeline, LAYERS)) as masking:
        masked = first_logits(made)
    assert session.report is not None
    assert masking.hidden is not None
    shown = [(~row).nonzero().squeeze(1).tolist() for row in masking.hidden]
    assert shown == [columns.tolist() for columns in session.report.kept]
    assert len(shown[0]) == made.prompt.length - 18 + 6
    torch.testing.assert_close(masked, pruned, rtol=1e-4, atol=1e-4)
    assert (masked - first_logits(made)).abs().max() > 1e-2


def test_several_cuts() -> None:
    made = bench(2)
    pipeline = tp.Pipeline([tp.AttnPrune(layer=0, keep=9), tp.AttnPrune(layer=2, keep_ratio=0.4)])
    with tp.attach(made.parts.model, pipeline) as session:
        pruned = first_logits(made)
    with masked_by_attention(made.parts, made.prompt, cuts_of(pipeline, LAYERS)) as masking:
        masked = first_logits(made)
    assert session.report is not None
    assert masking.hidden is not None
    shown = [(~row).nonzero().squeeze(1).tolist() for row in masking.hidden]
    assert shown == [columns.tolist() for columns in session.report.kept]
    torch.testing.assert_close(masked, pruned, rtol=1e-4, atol=1e-4)


def test_keeping_everything_is_the_plain_answer() -> None:
    made = bench(2, attention="eager")
    with masked_by_attention(made.parts, made.prompt, [(1, Budget(keep=18))]):
        masked = first_logits(made)
    assert torch.equal(masked, first_logits(made))


def test_what_is_hidden_stays_hidden_while_decoding() -> None:
    made = bench(2, new_tokens=4)
    seen: list[torch.Tensor] = []

    def note(module: torch.nn.Module, args: object, output: tuple[torch.Tensor, torch.Tensor]) -> None:
        seen.append(output[1])

    way = masked_by_attention(made.parts, made.prompt, [(1, Budget(keep=4))])
    early = made.parts.text.layers[1].self_attn.register_forward_hook(note)
    late = made.parts.text.layers[3].self_attn.register_forward_hook(note)
    try:
        _, masking, _ = timed_answer(made, way)
    finally:
        early.remove()
        late.remove()
    assert masking.hidden is not None
    assert len(seen) == 2 * 5
    for step, weights in enumerate(seen[1::2]):
        assert weights.shape[-1] == made.prompt.length + step
        hidden = masking.hidden[:, None, None].expand(-1, weights.shape[1], weights.shape[2], -1)
        assert not weights[..., : made.prompt.length][hidden].any()
        assert weights[..., -1, :].sum(-1).allclose(torch.ones(()))
    for weights in seen[::2]:
        assert (weights[:, :, -1, made.prompt.columns] > 0).all()


def test_the_model_is_as_it_was() -> None:
    made = bench()
    before = hooks_of(model())
    sample, facts = run_eager_baseline(made, [(1, Budget(keep=4))])
    assert attentions("sdpa") == {"sdpa"}
    assert hooks_of(model()) == before
    assert facts.layer_tokens == [[made.prompt.length]] * LAYERS
    assert facts.longest == made.prompt.length
    assert {"llm_prefill_seconds", "first_token_seconds", "whole_seconds"} <= set(sample)
    broken = made.parts.model.lm_head.register_forward_pre_hook(lambda *_: 1 / 0)
    try:
        with pytest.raises(ZeroDivisionError):
            run_eager_baseline(made, [(1, Budget(keep=4))])
    finally:
        broken.remove()
    assert attentions("sdpa") == {"sdpa"}
    assert hooks_of(model()) == before


def test_which_pipelines_have_an_eager_baseline() -> None:
    assert cuts_of(tp.preset("default"), 28) == [(10, Budget(keep_ratio=0.4))]
    assert cuts_of(tp.preset("stage1_only"), 28) == []
    assert cuts_of(tp.Pipeline(), 28) == []
    assert cuts_of(tp.Pipeline([tp.AttnPrune(layer=1, keep=3, modalities=("image",))]), 28) == []
