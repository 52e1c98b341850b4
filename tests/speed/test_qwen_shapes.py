# SPDX-License-Identifier: Apache-2.0
"""Shapes are those of the released models, and are built in the dtype they run in, the same each time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("torchvision")
pytest.importorskip("av")

import tokenprune as tp
from tokenprune.bench.model_speed import shapes
from tokenprune.bench.model_speed.shapes import SHAPES, Tower, build, shape_named
from tokenprune.errors import InvalidValueError, ModelLoadError

CPU = torch.device("cpu")
SMALL = shapes.Shape(
    2, 64, 4, 2, 96, 151936, tied=True, sections=(2, 3, 3), tower=Tower(2, 32, 2, 48, (1,)), cpu_dtype=torch.float32
)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(
        shapes, "SHAPES", {**SHAPES, "small": SMALL, "small-bf16": replace(SMALL, cpu_dtype=torch.bfloat16)}
    )
    return "small"


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("qwen2.5-vl-3b", 3_754_622_976),
        ("qwen2.5-vl-7b", 8_292_166_656),
        ("qwen3-vl-2b", 2_127_532_032),
        ("qwen3-vl-4b", 4_437_815_808),
        ("qwen3-vl-8b", 8_767_123_696),
        ("qwen3.5-4b", 4_539_265_536),  # without the layers that predict further tokens, which the library leaves out
        ("qwen3.5-9b", 9_409_813_744),
        ("llava-onevision-0.5b", 893_675_552),
        ("llava-onevision-7b", 8_030_807_584),
    ],
)
def test_as_many_parameters_as_the_released_model(name: str, parameters: int) -> None:
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(SHAPES[name].config(), dtype=torch.bfloat16)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize("name", [name for name in SHAPES if name.startswith("qwen2.5")])
def test_sizes_fit_together(name: str) -> None:
    shape: Any = SHAPES[name]
    assert sum(shape.sections) * 2 * shape.heads == shape.hidden
    assert shape.heads % shape.kv_heads == 0
    assert max(shape.tower.full) < shape.tower.depth
    config: Any = shape.config()
    assert config.text_config.rope_parameters["mrope_section"] == list(shape.sections)
    assert config.text_config.num_key_value_heads == shape.kv_heads
    assert config.vision_config.out_hidden_size == config.text_config.hidden_size
    assert list(config.vision_config.fullatt_block_indexes) == list(shape.tower.full)


def test_random_weights_are_sane_and_the_same_each_time(small: str) -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    one, other = build(small, CPU), build(small, CPU)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not one.training
    for (name, mine), (_, its) in zip(one.named_parameters(), other.named_parameters()):
        assert torch.equal(mine, its)
        if mine.ndim > 1:
            assert 0.015 < float(mine.detach().std()) < 0.025, name
    assert one.lm_head.weight is one.model.language_model.embed_tokens.weight


def test_dtypes(small: str) -> None:
    def kinds(name: str, dtype: str | None) -> set[torch.dtype]:
        return {parameter.dtype for parameter in build(name, CPU, dtype).parameters()}

    assert kinds("small", None) == kinds("small", "auto") == {torch.float32}
    assert kinds("small-bf16", None) == {torch.bfloat16}
    assert kinds("small", "bfloat16") == {torch.bfloat16}
    assert torch.get_default_dtype() == torch.float32


def test_rotary_frequencies_stay_exact(small: str) -> None:
    model = build("small-bf16", CPU)
    assert {buffer.dtype for _, buffer in model.named_buffers()} == {torch.float32}


def test_attention(small: str) -> None:
    assert build(small, CPU, attn="eager").config.text_config._attn_implementation == "eager"
    with pytest.raises(ModelLoadError, match="cannot build small"):
        build(small, CPU, attn="none such")


def test_what_is_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"qwen2\.5-vl-3b, .*got 'llama'"):
        shape_named("llama")
    with pytest.raises(tp.InvalidValueError, match="dtype must be one of"):
        build("qwen2.5-vl-3b", CPU, "int8")
