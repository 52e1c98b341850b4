# SPDX-License-Identifier: Apache-2.0
"""Prompts whose cache is pressed, and the truth: the whole model in which later queries do not see what is lost."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from hf.prompts import Clip, image, prompt
from torch import Tensor

ONE = prompt([[5, Clip(3, 2, 3), 6]])
RAGGED = prompt([[30], [5, Clip(3, 2, 3), 6], [9, Clip(2, 2, 2), 3, image(2, 2), 1, Clip(2, 2, 3), 7]])


def largest(scores: Tensor, count: int) -> list[int]:
    return sorted(scores.argsort(descending=True, stable=True)[:count].tolist())


def visual(given: Any, row: int) -> list[int]:
    return [p.column + i for p in given.clips[row] if p.clip.modality == "video" for i in range(p.clip.count)]


def masked(model: Any, given: Any, new: Tensor, kept: list[list[list[set[int]]]]) -> Tensor:
    """Logits of the full-length eager model in which later queries do not see what each layer and head has lost."""
    whole = given.answered(new)
    length, start = whole.length, given.length
    decoder, heads = model.model.language_model, model.config.text_config.num_attention_heads
    with ExitStack() as stack, torch.no_grad():
        for layer, rows in zip(decoder.layers, kept):
            allowed = torch.ones(length, length, dtype=torch.bool).tril() & whole.mask[:, None, None, :].bool()
            allowed = allowed.expand(-1, heads, -1, -1).clone()
            for row, found in enumerate(rows):
                for head in range(heads):
                    mine = found[head * len(found) // heads]
                    lost = [column for column in visual(given, row) if column not in mine]
                    allowed[row, head, start:, lost] = False
            mask = torch.where(allowed, 0.0, torch.finfo(torch.float32).min)

            def swap(module: Any, args: Any, kwargs: Any, mask: Tensor = mask) -> Any:
                return args, {**kwargs, "attention_mask": mask}

            handle = layer.self_attn.register_forward_pre_hook(swap, with_kwargs=True)
            stack.callback(handle.remove)
        return model(**whole.inputs(), use_cache=False).logits
