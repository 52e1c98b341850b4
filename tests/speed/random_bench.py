# SPDX-License-Identifier: Apache-2.0
"""Tiny models of random weights of families other than Qwen2.5-VL, and the prompt that they are measured on."""

from __future__ import annotations

import torch

from tokenprune.bench.model_speed import shapes
from tokenprune.bench.model_speed.clip_kind import clip_kind
from tokenprune.bench.model_speed.llava_shapes import LlavaShape, SiglipTower
from tokenprune.bench.model_speed.prompt import make_prompt, random_features
from tokenprune.bench.model_speed.qwen3_5_shapes import Qwen35Shape
from tokenprune.bench.model_speed.qwen3_shapes import Qwen3Tower
from tokenprune.bench.model_speed.runs import Bench
from tokenprune.bench.speed.request import SpeedRequest
from tokenprune.hf.frontend.auto import AUTO
from tokenprune_qwen25vl.assets import demo_clip

TINY = {
    "hybrid": Qwen35Shape(
        8,
        64,
        4,
        2,
        96,
        tied=True,
        tower=Qwen3Tower(2, 32, 2, 48, deepstack=()),
        key_heads=2,
        value_heads=4,
        head_dim=32,
        linear_dim=16,
        cpu_dtype=torch.float32,
    ),
    "squares": LlavaShape(
        4, 64, 4, 2, 96, 152000, tied=True, tower=SiglipTower(2, 32, 2, 48, image=40, patch=8), cpu_dtype=torch.float32
    ),
}
GRIDS = {"hybrid": (3, 2, 3), "squares": (3, 3, 3)}
"""Five patches along a side, which the model pools to three tokens."""


def bench(name: str, batch: int = 1, attention: str = "sdpa", new_tokens: int = 2) -> Bench:
    """One of :data:`TINY`, shown random features; its weights are wide, so that a wrong token or position shows."""
    parts = AUTO.parts(shapes.build(name, torch.device("cpu"), attn=attention))
    with torch.no_grad():
        for index, parameter in enumerate(parts.text.layers.parameters()):
            if parameter.ndim > 1:
                draw = torch.Generator().manual_seed(index)
                parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.2)
    request = SpeedRequest({}, grid=GRIDS[name], text=6, batch=batch, new_tokens=new_tokens)
    config = parts.model.config
    kind = clip_kind(config)
    pixels = kind.pixels(kind.processor(config), demo_clip(), request.grid, batch)
    prompt = make_prompt(parts, request, pixels)
    return Bench(parts, prompt.showing(random_features(parts, request)), pixels, new_tokens)
