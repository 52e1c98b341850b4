# SPDX-License-Identifier: Apache-2.0
"""Qwen3.5 and LLaVA-OneVision with random weights: their prompts, lower bounds, caches and work are what they say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

pytest.importorskip("transformers")
pytest.importorskip("torchvision")
pytest.importorskip("av")

from speed.random_bench import GRIDS, TINY, bench

import tokenprune as tp
from tokenprune.bench.model_speed import shapes
from tokenprune.bench.model_speed.clip_kind import clip_kind
from tokenprune.bench.model_speed.decoder_sizes import decoder_shape
from tokenprune.bench.model_speed.eager_baseline import cuts_of, masked_by_attention
from tokenprune.bench.model_speed.lower_bound import run_layers
from tokenprune.bench.model_speed.runs import Bench, run_pipeline, run_plain
from tokenprune.bench.model_speed.suite import ModelSpeed
from tokenprune.bench.speed.arithmetic import Attention, DecoderShape, GatedDelta, kv_bytes, prefill_flops
from tokenprune.bench.speed.request import SpeedRequest
from tokenprune.bench.speed.result import SpeedRow
from tokenprune.errors import InvalidValueError
from tokenprune.hf.frontend.auto import AUTO

LENGTHS = {"hybrid": 14 + 2 + 3 * (5 + 2 + 6) + 6, "squares": 14 + 27 + 1 + 6}
VISUAL = {"hybrid": 18, "squares": 27}
PIPELINE = tp.Pipeline([tp.Cover(keep_ratio=0.5), tp.AttnPrune(layer=0.5, keep_ratio=0.5)])


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "SHAPES", TINY)


def seen_by_decoder(made: Bench, inputs: dict[str, Any]) -> dict[str, Any]:
    """What the decoder is handed in a forward."""
    found: dict[str, Any] = {}
    handle = made.parts.text.register_forward_pre_hook(lambda _, args, kwargs: found.update(kwargs), with_kwargs=True)
    try:
        with torch.no_grad():
            made.parts.model(**inputs)
    finally:
        handle.remove()
    return found


def rows_of(name: str) -> dict[str, SpeedRow]:
    request = SpeedRequest(
        {"half": PIPELINE},
        grid=GRIDS[name],
        text=6,
        batch=2,
        new_tokens=2,
        rounds=1,
        warmup=0,
        shape=name,
        device="cpu",
    )
    result = ModelSpeed(AUTO).measure(request)
    assert not result.unreachable
    assert result.setting["prompt_tokens"] == LENGTHS[name]
    assert result.setting["visual_tokens"] == VISUAL[name]
    return {row.name: row for row in result.rows}


@pytest.mark.parametrize("name", TINY)
def test_every_row_is_measured(name: str) -> None:
    rows = rows_of(name)
    assert set(rows) == {"plain", "half", "lower bound: half", "eager baseline: half"}
    whole, half = rows["plain"], rows["half"]
    assert whole.kv_bytes == whole.kv_bytes_by_formula
    assert half.kv_bytes == half.kv_bytes_by_formula < whole.kv_bytes_by_formula
    assert half.prefill_flops < whole.prefill_flops
    tokens = [rows_[0] for rows_ in half.layer_tokens]
    cut = 4 if name == "hybrid" else 3  # layer 3 is the last of full attention in the first half; layer 2
    merged = LENGTHS[name] - VISUAL[name] // 2
    assert tokens[:cut] == [merged] * cut
    assert set(tokens[cut:]) == {tokens[-1]}
    assert tokens[-1] < merged
    assert [row[0] for row in rows["lower bound: half"].layer_tokens] == tokens
    assert {row[0] for row in rows["eager baseline: half"].layer_tokens} == {LENGTHS[name]}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", TINY)
def test_at_full_length_the_lower_bound_is_the_decoder(name: str, attention: str) -> None:
    made = bench(name, 2, attention)
    embeds, positions = made.prompt.embeds(made.parts), made.prompt.positions(made.parts)
    found = run_layers(made.parts, embeds, positions, [made.prompt.length] * len(made.parts.text.layers))
    with torch.no_grad():
        wanted = made.parts.text(inputs_embeds=embeds, position_ids=positions, use_cache=True).last_hidden_state
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("name", TINY)
def test_the_decoder_is_handed_the_prompts_features_and_positions(name: str) -> None:
    made = bench(name, 2)
    with made.prompt.shown(made.parts):
        seen = seen_by_decoder(made, made.prompt.inputs())
    assert torch.equal(seen["inputs_embeds"], made.prompt.embeds(made.parts))
    given = seen.get("position_ids")
    if given is not None:
        assert torch.equal(given[-3:] if name == "hybrid" else given, made.prompt.positions(made.parts))


@pytest.mark.parametrize("name", TINY)
def test_the_prompt_is_read_as_one_video(name: str) -> None:
    made = bench(name)
    with tp.attach(made.parts.model, tp.Cover(keep_ratio=0.5)) as session, made.prompt.shown(made.parts):
        made.parts.model(**made.prompt.inputs())
    assert session.report is not None
    assert session.report.visual_tokens == [VISUAL[name]]


def test_clips_of_squares_are_encoded_as_the_model_does_it() -> None:
    made = bench("squares", 2)
    prompt = made.prompt
    assert made.pixels.shape == (2, 3, 3, 40, 40)
    assert not torch.equal(made.pixels[0], made.pixels[1])
    mine = prompt.showing(prompt.encoded(made.parts, made.pixels)).embeds(made.parts)
    theirs = seen_by_decoder(made, {**prompt.inputs(), "pixel_values_videos": made.pixels})["inputs_embeds"]
    assert torch.equal(mine[:, prompt.columns], theirs[:, prompt.columns])
    assert int(prompt.ids[0, prompt.after]) == made.parts.model.config.video_token_id  # the newline is no visual token


def test_a_grid_that_no_frame_has() -> None:
    config: Any = TINY["squares"].config()
    with pytest.raises(InvalidValueError, match="must be 5x3x3, got 5x2x3"):
        clip_kind(config).layout(config, (5, 2, 3))


def products(counter: FlopCounterMode) -> int:
    """Those of linear projections."""
    counts = counter.get_flop_counts()["Global"]
    return sum(count for operation, count in counts.items() if str(operation) in ("aten.mm", "aten.addmm"))


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", TINY)
def test_the_matrices_of_the_formula_are_what_torch_counts(name: str, batch: int) -> None:
    made = bench(name, batch, "eager")
    text = made.parts.text
    depth, length = len(text.layers), made.prompt.length
    embeds, positions = made.prompt.embeds(made.parts), made.prompt.positions(made.parts)
    lengths = [length] * 2 + [length // 2] * (depth - 2)
    with FlopCounterMode(display=False) as counter:
        run_layers(made.parts, embeds, positions, lengths)
    shape = decoder_shape(text)
    beside = sum(batch * mixer.flops(tokens) for mixer, tokens in zip(shape.mixers, lengths))
    assert prefill_flops(shape, [[tokens] * batch for tokens in lengths]) - beside == products(counter)


def test_linear_attention_by_its_definition() -> None:
    mixer = GatedDelta(key_heads=2, value_heads=4, key_dim=8, value_dim=5, kernel=4)
    tokens = 7
    state, key, value = torch.zeros(4, 8, 5), torch.randn(tokens, 4, 8, 1), torch.randn(tokens, 4, 1, 5)
    with FlopCounterMode(display=False) as counter:
        for k, v in zip(key, value):
            old = torch.bmm(k.mT, state)
            state = state + torch.bmm(k, v - old)
            torch.bmm(k.mT, state)  # a query is as wide as a key
        signals: Tensor = torch.randn(1, mixer.channels, tokens + 3)
        torch.conv1d(signals, torch.randn(mixer.channels, 1, 4), groups=mixer.channels)
    assert mixer.channels == 2 * 2 * 8 + 4 * 5
    assert mixer.flops(tokens) == counter.get_total_flops()


def test_what_a_cache_of_both_kinds_of_layers_holds_by_hand() -> None:
    linear = GatedDelta(key_heads=1, value_heads=2, key_dim=3, value_dim=5, kernel=4)
    shape = DecoderShape(8, (linear, Attention(4, 2, 2)), widths=(16, 16))
    state = 4 * (2 * 3 + 2 * 5) * 2 + 2 * 3 * 5 * 4
    assert kv_bytes(shape, rows=3, longest=10, item_size=2) == 3 * (state + 10 * 2 * 2 * 2 * 2)
    assert kv_bytes(shape, 1, 20, 2) - kv_bytes(shape, 1, 10, 2) == 10 * 2 * 2 * 2 * 2


def test_gates_count_as_matrices() -> None:
    kinds = [type(mixer).__name__ for mixer in decoder_shape(bench("hybrid").parts.text).mixers]
    assert kinds == (["GatedDelta"] * 3 + ["Attention"]) * 2
    mixers = decoder_shape(bench("hybrid").parts.text).mixers
    assert mixers[3] == Attention(4, 2, 32, gated=True)
    assert decoder_shape(bench("squares").parts.text).mixers[0] == Attention(4, 2, 16)


def test_in_a_hybrid_the_eager_baseline_masks_where_there_is_attention() -> None:
    made = bench("hybrid", attention="eager")
    plain, _ = run_plain(made)
    assert "llm_prefill_seconds" in plain
    cuts = cuts_of(tp.Pipeline([tp.AttnPrune(layer=0.5, keep_ratio=0.5)]), 8, readable=(3, 7))
    assert [layer for layer, _ in cuts] == [3]
    with made.prompt.shown(made.parts), masked_by_attention(made.parts, made.prompt, cuts) as masking:
        made.parts.model(**made.prompt.inputs())
    assert masking.hidden is not None
    assert int(masking.hidden.sum()) == 9


def test_a_pipeline_in_a_hybrid_leaves_what_it_reports() -> None:
    made = bench("hybrid", 2)
    _, facts = run_pipeline(made, PIPELINE)
    shape = decoder_shape(made.parts.text)
    assert facts.kv_bytes == kv_bytes(shape, 2, facts.longest, 4)
    assert facts.longest < made.prompt.length
