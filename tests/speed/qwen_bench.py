# SPDX-License-Identifier: Apache-2.0
"""A tiny Qwen2.5-VL and a prompt of random clips, as the runs of the speed benchmark take them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from qwen25vl.tiny import tiny_model

from tokenprune.bench.model_speed.clip_kind import clip_kind
from tokenprune.bench.model_speed.prompt import make_prompt
from tokenprune.bench.model_speed.runs import Bench
from tokenprune.bench.speed.request import SpeedRequest
from tokenprune.hf.frontend.features import VideoFeatures
from tokenprune_qwen25vl.assets import demo_clip
from tokenprune_qwen25vl.parts import require_parts


@lru_cache
def model(attention: str = "sdpa") -> Any:
    """One for the tests of a file, with wide weights, so that a wrong token or position shows."""
    made = tiny_model()
    made.set_attn_implementation(attention)
    return made


def bench(batch: int = 1, new_tokens: int = 3, text: int = 4, attention: str = "sdpa") -> Bench:
    parts = require_parts(model(attention))
    request = SpeedRequest({}, grid=(3, 2, 3), text=text, batch=batch, new_tokens=new_tokens)
    kind = clip_kind(parts.model.config)
    pixels = kind.pixels(kind.processor(parts.model.config), demo_clip(), request.grid, batch)
    prompt = make_prompt(parts, request, pixels)
    features = prompt.encoded(parts, pixels)
    noise = torch.randn(features.tokens.shape, generator=torch.Generator().manual_seed(5))
    return Bench(parts, prompt.showing(VideoFeatures(features.tokens + noise)), pixels, new_tokens)


def first_logits(of: Bench, **more: Any) -> torch.Tensor:
    """``(B, vocabulary)`` after the prompt, from a forward that encodes nothing."""
    from tokenprune.hf.frontend.features import encoded_before

    with torch.no_grad(), encoded_before(of.parts.tower, of.prompt.features):
        return of.parts.model(**of.prompt.inputs(), **more).logits[:, -1]


def hooks_of(made: Any) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in made.modules())
