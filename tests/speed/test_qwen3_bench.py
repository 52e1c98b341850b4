# SPDX-License-Identifier: Apache-2.0
"""A Qwen3-VL with random weights is measured as a Qwen2.5-VL is: times between frames, deepstack features."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("torchvision")
pytest.importorskip("av")

import tokenprune as tp
from tokenprune.bench.model_speed import shapes
from tokenprune.bench.model_speed.clip_kind import clip_kind
from tokenprune.bench.model_speed.lower_bound import run_layers
from tokenprune.bench.model_speed.prompt import make_prompt, random_features
from tokenprune.bench.model_speed.qwen3_shapes import QWEN3_SHAPES, Qwen3Shape, Qwen3Tower
from tokenprune.bench.model_speed.suite import ModelSpeed
from tokenprune.bench.speed.request import SpeedRequest
from tokenprune.hf.frontend.auto import AUTO
from tokenprune.hf.frontend.features import encoded_before
from tokenprune_qwen25vl.assets import demo_clip
from tokenprune_qwen25vl.family import QWEN25VL

TINY = Qwen3Shape(4, 64, 4, 2, 96, Qwen3Tower(3, 32, 2, 48, (0, 1)), tied=True, head_dim=32, cpu_dtype=torch.float32)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "SHAPES", {"tiny": TINY})


@pytest.mark.parametrize("name", QWEN3_SHAPES)
def test_sizes_fit_together(name: str) -> None:
    shape = QWEN3_SHAPES[name]
    config: Any = shape.config()
    assert 2 * sum(config.text_config.rope_parameters["mrope_section"]) == shape.head_dim
    assert shape.heads % shape.kv_heads == 0
    assert max(shape.tower.deepstack) < shape.tower.depth
    assert config.vision_config.out_hidden_size == config.text_config.hidden_size


def test_every_row_is_measured() -> None:
    pipelines = {"half": tp.Pipeline([tp.Cover(keep_ratio=0.5), tp.AttnPrune(layer=1, keep_ratio=0.5)])}
    request = SpeedRequest(
        pipelines, grid=(3, 2, 3), text=6, batch=2, new_tokens=2, rounds=1, warmup=0, shape="tiny", device="cpu"
    )
    result = ModelSpeed(QWEN25VL).measure(request)
    rows = {row.name: row for row in result.rows}
    assert set(rows) == {"plain", "half", "lower bound: half", "eager baseline: half"}
    assert not result.unreachable
    whole, half = rows["plain"], rows["half"]
    assert whole.kv_bytes == whole.kv_bytes_by_formula
    assert half.kv_bytes == half.kv_bytes_by_formula < whole.kv_bytes_by_formula
    assert result.setting["visual_tokens"] == 18
    lengths = [rows_[0] for rows_ in half.layer_tokens]
    assert lengths == [result.setting["prompt_tokens"] - 9] * 2 + [result.setting["prompt_tokens"] - 13] * 2


@torch.no_grad()
def test_the_prompt_is_read_as_one_video_and_the_layers_as_the_decoder_runs_them() -> None:
    parts = AUTO.parts(shapes.build("tiny", torch.device("cpu")))
    request = SpeedRequest({}, grid=(3, 2, 3), text=6, batch=1)
    kind = clip_kind(parts.model.config)
    pixels = kind.pixels(kind.processor(parts.model.config), demo_clip(), request.grid, 1)
    prompt = make_prompt(parts, request, pixels)
    prompt = prompt.showing(random_features(parts, request))
    assert prompt.length == 14 + kind.layout(parts.model.config, (3, 2, 3)).length + 6 == 14 + 2 + 3 * (5 + 2 + 6) + 6
    with tp.attach(parts.model, tp.Cover(keep_ratio=0.5)) as session, encoded_before(parts.tower, prompt.features):
        parts.model(**prompt.inputs())
    assert session.report.visual_tokens == [18]
    embeds, positions = prompt.embeds(parts), prompt.positions(parts)
    mine = run_layers(parts, embeds, positions, [prompt.length] * 4)
    theirs = parts.text(inputs_embeds=embeds, position_ids=positions).last_hidden_state
    assert torch.allclose(mine, theirs, atol=1e-5)
