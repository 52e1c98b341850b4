# SPDX-License-Identifier: Apache-2.0
"""Small helpers around a running session: what is generated, what is left behind, what was not touched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from hf.prompts import TEXT, Prompt
from torch import Tensor, nn

import tokenprune as tp


def answers(model: Any, prompt: Prompt, new: int = 4, **more: Any) -> list[list[int]]:
    """``new`` text tokens of each row, greedily unless told otherwise."""
    return sequences(model, prompt.inputs(), new, **more)[:, prompt.length :].tolist()


def sequences(model: Any, inputs: dict[str, Any], new: int = 4, **more: Any) -> Any:
    """What ``generate`` returns for ``new`` text tokens."""
    no_control = list(range(TEXT, model.config.get_text_config().vocab_size))
    settings = {"do_sample": False, "max_new_tokens": new, "suppress_tokens": no_control, **inputs, **more}
    return model.generate(**{name: value for name, value in settings.items() if value is not None})


def alone(prompt: Prompt, row: int) -> Prompt:
    """One row of a batch without its padding."""
    start = int((prompt.mask[row] == 0).sum())
    ids = prompt.ids[row : row + 1, start:]
    clips = [replace(placed, column=placed.column - start) for placed in prompt.clips[row]]
    return Prompt(ids, torch.ones_like(ids), [clips], [(0, ids.shape[1])])


def stacked(prompts: list[Prompt]) -> Prompt:
    """Single rows as a batch, the shorter ones padded on the left."""
    length = max(prompt.length for prompt in prompts)
    shifts = [length - prompt.length for prompt in prompts]
    pairs = list(zip(prompts, shifts))
    return Prompt(
        torch.cat([nn.functional.pad(p.ids, (shift, 0)) for p, shift in pairs]),
        torch.cat([nn.functional.pad(p.mask, (shift, 0)) for p, shift in pairs]),
        [[replace(placed, column=placed.column + shift) for placed in p.clips[0]] for p, shift in pairs],
        [(0, length)],
    )


def state_of(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Everything a session could leave behind: each module's attributes and dictionary entries, by identity."""
    return {
        name: {
            key: {k: id(v) for k, v in value.items()} if isinstance(value, dict) else id(value)
            for key, value in module.__dict__.items()
            if key not in ("rope_deltas", "prepare_inputs_for_generation")  # memories of the library's and of PEFT's
        }
        for name, module in model.named_modules()
    }


@dataclass
class Calls:
    """How often the model's forward has begun."""

    count: int = 0


@contextmanager
def counted(model: nn.Module) -> Iterator[Calls]:
    """Counts how often anything of the model runs: its vision tower, or a decoder layer."""
    calls = Calls()

    def begin(module: nn.Module, args: Any) -> None:
        calls.count += 1

    inner = [m for name, m in model.named_modules() if name.endswith(("visual", "language_model", "vision_tower"))]
    assert inner
    handles = [module.register_forward_pre_hook(begin) for module in inner]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def kept(session: tp.Session) -> list[list[int]]:
    assert session.report is not None
    return [columns.tolist() for columns in session.report.kept]


def contents(cache: Any) -> list[tuple[Any, ...]]:
    """What every layer of a cache holds, to be compared with :func:`same_contents`."""
    return [
        tuple(
            value.clone() if isinstance(value, Tensor) else value
            for value in (
                layer.keys,
                layer.values,
                *(getattr(layer, n, None) for n in ("removed", "columns", "valid")),
            )
        )
        for layer in cache.layers
    ]


def same_contents(one: list[tuple[Any, ...]], other: list[tuple[Any, ...]]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a is b or a == b
        for mine, yours in zip(one, other)
        for a, b in zip(mine, yours)
    )
