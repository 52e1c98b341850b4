# SPDX-License-Identifier: Apache-2.0
"""The lower bound runs the decoder's own layers, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")
pytest.importorskip("torchvision")
pytest.importorskip("av")

from qwen25vl.tiny import LAYERS
from speed.qwen_bench import bench, hooks_of, model

import tokenprune as tp
from tokenprune.bench.model_speed.lower_bound import run_layers, run_lower_bound
from tokenprune.bench.model_speed.runs import Bench, Subject, run_pipeline, run_plain
from tokenprune.hf.frontend.family import Parts


def decoder(made: Bench, embeds: Tensor, positions: Tensor) -> Tensor:
    with torch.no_grad():
        return made.parts.text(inputs_embeds=embeds, position_ids=positions, use_cache=True).last_hidden_state


def without_cache(parts: Parts, embeds: Tensor, positions: Tensor, lengths: list[int]) -> Tensor:
    """The same layers, each on a sequence of its own, with every attention matrix masked by hand."""
    text: Any = parts.text
    hidden = embeds
    for layer, length in zip(text.layers, lengths):
        hidden = hidden[:, -length:]
        ahead = torch.ones(length, length, dtype=torch.bool).triu(1)
        mask = torch.zeros(length, length).masked_fill(ahead, torch.finfo(torch.float32).min)[None, None]
        rotary = text.rotary_emb(hidden, positions[:, :, -length:])
        hidden = layer(hidden, attention_mask=mask, position_embeddings=rotary, position_ids=None)
    return text.norm(hidden)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("batch", [1, 2])
def test_at_full_length_it_is_the_decoder(attention: str, batch: int) -> None:
    made = bench(batch, attention=attention)
    embeds, positions = made.prompt.embeds(made.parts), made.prompt.positions(made.parts)
    found = run_layers(made.parts, embeds, positions, [made.prompt.length] * LAYERS)
    assert torch.equal(found, decoder(made, embeds, positions))
    shorter = run_layers(made.parts, embeds, positions, [7] * LAYERS)
    assert torch.equal(shorter, decoder(made, embeds[:, -7:].contiguous(), positions[:, :, -7:]))


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("lengths", [[30, 30, 11, 11], [37, 20, 19, 5], [9, 9, 9, 1]])
def test_lengths_are_followed(attention: str, lengths: list[int]) -> None:
    made = bench(2, attention=attention)
    embeds, positions = made.prompt.embeds(made.parts), made.prompt.positions(made.parts)
    seen: list[int] = []
    handles = [
        layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
        for layer in made.parts.text.layers
    ]
    try:
        found = run_layers(made.parts, embeds, positions, lengths)
    finally:
        for handle in handles:
            handle.remove()
    assert seen == lengths
    with torch.no_grad():
        torch.testing.assert_close(found, without_cache(made.parts, embeds, positions, lengths), rtol=1e-5, atol=1e-5)


def test_the_lengths_are_those_of_the_longest_row() -> None:
    made = bench(2)
    before = hooks_of(model())
    pipeline = tp.Pipeline([tp.STMerge(), tp.AttnPrune(layer=1, keep_ratio=0.5)])
    pruned = Subject("mine", "pipeline", lambda: run_pipeline(made, pipeline), pipeline)
    pruned()
    assert pruned.facts is not None
    sample, facts = run_lower_bound(made, pruned)
    longest = [max(rows) for rows in pruned.facts.layer_tokens]
    assert facts.layer_tokens == [[length] * 2 for length in longest]
    assert longest[0] < made.prompt.length
    assert longest[2] < longest[1]
    assert facts.longest == pruned.facts.longest
    assert facts.kv_bytes is None
    assert sample["llm_prefill_seconds"] > 0
    assert not any("token" in name or "whole" in name for name in sample)
    assert hooks_of(model()) == before


def test_without_its_pipeline_it_cannot_run() -> None:
    made = bench()
    with pytest.raises(MemoryError, match="mine did not run"):
        run_lower_bound(made, Subject("mine", "pipeline", lambda: run_plain(made)))
