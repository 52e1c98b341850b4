# SPDX-License-Identifier: Apache-2.0
"""Signals of the vision encoder, in the families whose tower is built like Qwen's."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from families.tiny import CASES, Tiny, prompt, tiny_model
from torch import Tensor, nn

import tokenprune as tp
from tokenprune.signals import OF_THE_ENCODER

READ = [case for case in CASES if case.family.encoder and case.model_class is not None]
UNREAD = [case for case in CASES if not case.family.encoder and case.model_class is not None]
EACH = 4
"""Patches of a token."""


@dataclass(frozen=True)
class Witness:
    """Keeps everything and remembers what it was shown."""

    needs: tuple[str, ...] = OF_THE_ENCODER
    seen: list[tp.VisualTokens] = field(default_factory=list[tp.VisualTokens], compare=False)

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        self.seen.append(tokens)
        return tp.TokenPlan.identity(len(tokens))


@pytest.mark.parametrize("case", READ, ids=str)
def test_signals_are_those_of_the_towers_last_attention(case: Tiny) -> None:
    model, given, witness = tiny_model(case), prompt(case, case.rows), Witness()
    truth = last_attention(model, given.inputs["pixel_values_videos"], given.inputs["video_grid_thw"])
    with tp.attach(model, witness), torch.no_grad():
        model.generate(**given.inputs, max_new_tokens=1)
    assert len(witness.seen) == len(truth) == 3
    for tokens, wanted in zip(witness.seen, truth):
        for name, value in wanted.items():
            torch.testing.assert_close(tokens.signals[name].double(), value, rtol=1e-5, atol=1e-7)


@torch.no_grad()
def last_attention(model: Any, pixels: Tensor, grids: Tensor) -> list[dict[str, Tensor]]:
    """Per video, in fp64 and at once, what follows from the queries and keys of the last block."""
    attention = model.model.visual.blocks[-1].attn
    rotated = vars(sys.modules[type(attention).__module__])["apply_rotary_pos_emb_vision"]
    taken: dict[str, Any] = {}

    def rotary(module: nn.Module, args: Any, kwargs: Any) -> None:
        taken["rotary"] = kwargs["position_embeddings"]

    def projected(module: nn.Module, args: Any, output: Tensor) -> None:
        taken["qkv"] = output

    handles = [
        attention.register_forward_pre_hook(rotary, with_kwargs=True),
        attention.qkv.register_forward_hook(projected),
    ]
    model.model.visual(pixels, grid_thw=grids)
    for handle in handles:
        handle.remove()
    heads = attention.num_heads
    q, k, _ = taken["qkv"].reshape(len(pixels), 3, heads, -1).unbind(1)
    turned_q, turned_k = (x.transpose(0, 1).double() for x in rotated(q, k, *taken["rotary"]))
    found: list[dict[str, Tensor]] = []
    start = 0
    for frames, height, width in grids.tolist():
        signals: dict[str, list[Tensor]] = {name: [] for name in OF_THE_ENCODER}
        for _ in range(frames):
            part = slice(start, start + height * width)
            start += height * width
            mine, others = turned_q[:, part], turned_k[:, part]
            full = (mine @ others.mT * attention.scaling).softmax(-1)
            signals["encoder_column"].append(full.mean((0, 1)).view(-1, EACH).mean(1))
            each = others.unflatten(1, (-1, EACH)).mean(2)
            pooled = (mine.mean(1, keepdim=True) @ each.mT * attention.scaling).softmax(-1)
            signals["encoder_pooled"].append(pooled.mean((0, 1)))
            signals["encoder_keys"].append(k[part].double().unflatten(0, (-1, EACH)).mean((1, 2)))
        found.append({name: torch.cat(values) for name, values in signals.items()})
    return found


@pytest.mark.parametrize("case", UNREAD, ids=str)
def test_elsewhere_an_operator_that_needs_them_is_refused(case: Tiny) -> None:
    with pytest.raises(tp.UnsupportedModeError, match="needs the signal encoder_column"):
        tp.attach(tiny_model(case), Witness())
