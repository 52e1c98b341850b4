# SPDX-License-Identifier: Apache-2.0
"""The plain decoder layers at a pipeline's lengths: what pruning would take if deciding and removing cost nothing."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from tokenprune.bench.model_speed.runs import Bench, Facts, Subject, peak_of
from tokenprune.bench.speed.clock import timed
from tokenprune.bench.speed.figures import Sample
from tokenprune.bench.speed.memory import PeakMemory
from tokenprune.hf.frontend.family import Parts
from tokenprune.hf.release import LINEAR, causal_mask, kind_of, with_cache


@torch.no_grad()
def run_layers(parts: Parts, embeds: Tensor, positions: Tensor, lengths: Sequence[int]) -> Tensor:
    """The decoder's forward over a prompt that gets shorter: layers, rotary embedding, masks, cache and final norm.

    The last tokens stay, as views of what there was: nothing is gathered, scored or copied.

    Args:
        parts: the model.
        embeds: ``(B, L, D)`` what the decoder is handed.
        positions: ``(B, L)``, or ``(3, B, L)`` of M-RoPE.
        lengths: tokens that each layer computes, at most L and never more than the layer before.

    Returns:
        ``(B, lengths[-1], D)``, as the decoder puts it out.
    """
    text = parts.text
    cache = DynamicCache(config=text.config)
    hidden = embeds[:, embeds.shape[1] - lengths[0] :]
    rotary: tuple[Tensor, ...] = text.rotary_emb(hidden, positions[..., positions.shape[-1] - lengths[0] :])
    mask, masked = None, 0
    for index, (layer, length) in enumerate(zip(text.layers, lengths)):
        if length != hidden.shape[1]:
            first = hidden.shape[1] - length
            hidden = hidden[:, first:]
            rotary = tuple(part[..., first:, :] for part in rotary)
        is_linear = kind_of(text, index) == LINEAR  # such layers are told of padding alone, and there is none
        if length != masked and not is_linear:
            mask, masked = causal_mask(text, hidden, None, cache, index), length
        given = {
            "attention_mask": None if is_linear else mask,
            "position_embeddings": rotary,
            "position_ids": None,
            "use_cache": True,
        }
        hidden = layer(hidden, **with_cache(layer, given, cache))
    return text.norm(hidden)


def run_lower_bound(bench: Bench, pruned: Subject) -> tuple[Sample, Facts]:
    """The prefill of a pipeline that has run, without its operators; rows are as long as its longest.

    Raises:
        MemoryError: the pipeline has not run, because there was no memory for it; so its lengths are not known.
    """
    if pruned.facts is None:
        raise MemoryError(f"{pruned.name} did not run, so its lengths are not known")
    lengths = [max(rows) for rows in pruned.facts.layer_tokens]
    gc.collect()
    embeds, positions = bench.prompt.embeds(bench.parts), bench.prompt.positions(bench.parts)
    with PeakMemory(bench.device) as peak:
        _, seconds = timed(bench.device, lambda: run_layers(bench.parts, embeds, positions, lengths))
    tokens = [[length] * bench.prompt.rows for length in lengths]
    return {"llm_prefill_seconds": seconds, **peak_of(peak)}, Facts(tokens, pruned.facts.longest, None)
