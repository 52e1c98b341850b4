# SPDX-License-Identifier: Apache-2.0
"""Prompts whose cache is pressed, and the truth: the whole model in which later queries do not see what is lost."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from hf.prompts import Clip, Prompt, image, prompt
from torch import Tensor

ONE = prompt([[5, Clip(3, 2, 3), 6]])
RAGGED = prompt([[30], [5, Clip(3, 2, 3), 6], [9, Clip(2, 2, 2), 3, image(2, 2), 1, Clip(2, 2, 3), 7]])


def largest(scores: Tensor, count: int) -> list[int]:
    return sorted(scores.argsort(descending=True, stable=True)[:count].tolist())


def visual(given: Any, row: int) -> list[int]:
    return [p.column + i for p in given.clips[row] if p.clip.modality == "video" for i in range(p.clip.count)]


Kept = list[list[list[set[int]]]]
"""Per layer, row and key-value head the visual columns that stay."""


@dataclass(frozen=True)
class Pressed:
    """From column ``start`` on queries do not see those of ``columns``, per row, that are not among ``kept``."""

    start: int
    columns: list[list[int]]
    kept: Kept


def masked(model: Any, given: Prompt, new: Tensor, kept: Kept) -> Tensor:
    """Logits of the full-length eager model in which later queries do not see what each layer and head has lost."""
    lost = Pressed(given.length, [visual(given, row) for row in range(len(given.ids))], kept)
    return seen(model, given.answered(new), [lost]).logits


def seen(model: Any, whole: Prompt, presses: Sequence[Pressed]) -> Any:
    """What the full-length eager model puts out, attention and cache as well, after several presses."""
    length = whole.length
    decoder, heads = model.model.language_model, model.config.text_config.num_attention_heads
    with ExitStack() as stack, torch.no_grad():
        for number, layer in enumerate(decoder.layers):
            allowed = torch.ones(length, length, dtype=torch.bool).tril() & whole.mask[:, None, None, :].bool()
            allowed = allowed.expand(-1, heads, -1, -1).clone()
            for press, row, head in product(presses, range(len(whole.ids)), range(heads)):
                found = press.kept[number][row]
                mine = found[head * len(found) // heads]
                lost = [column for column in press.columns[row] if column not in mine]
                allowed[row, head, press.start :, lost] = False
            mask = torch.where(allowed, 0.0, torch.finfo(torch.float32).min)

            def swap(module: Any, args: Any, kwargs: Any, mask: Tensor = mask) -> Any:
                return args, {**kwargs, "attention_mask": mask}

            handle = layer.self_attn.register_forward_pre_hook(swap, with_kwargs=True)
            stack.callback(handle.remove)
        return model(**whole.inputs(), use_cache=True, output_attentions=True)
