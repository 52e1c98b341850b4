# SPDX-License-Identifier: Apache-2.0
"""The prompt is read by the adapter as it was meant, and the clip is what the processor makes of the frames."""

from __future__ import annotations

from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("torchvision")
pytest.importorskip("av")

from speed.qwen_bench import bench, first_logits

from tokenprune.adapter import Prompt
from tokenprune.bench.model_speed.clip_kind import KINDS
from tokenprune.bench.model_speed.prompt import LEAD, random_features, require_room
from tokenprune.bench.speed.request import SpeedRequest
from tokenprune.errors import InvalidValueError
from tokenprune_qwen25vl.assets import demo_clip
from tokenprune_qwen25vl.boundaries import visual_boundaries
from tokenprune_qwen25vl.chat import Conversation, model_inputs
from tokenprune_qwen25vl.loading import load
from tokenprune_qwen25vl.video import load_clip


def test_the_prompt_holds_one_clip_of_the_grid_in_each_row() -> None:
    made = bench(batch=2, text=5)
    prompt, config = made.prompt, made.parts.model.config
    count = 3 * 2 * 3
    assert prompt.ids.shape == (2, LEAD + 1 + count + 1 + 5)
    assert (prompt.rows, prompt.length, prompt.visual_tokens) == (2, prompt.ids.shape[1], count)
    assert torch.equal(prompt.ids[0], prompt.ids[1])
    row = prompt.ids[0].tolist()
    assert row[LEAD] == config.vision_start_token_id
    assert row[LEAD + 1 : LEAD + 1 + count] == [config.video_token_id] * count
    assert row[LEAD + 1 + count] == config.vision_end_token_id
    control = {config.vision_start_token_id, config.vision_end_token_id, config.video_token_id, config.image_token_id}
    ends = {config.text_config.eos_token_id, config.text_config.pad_token_id}
    assert not (control | ends) & set(row[:LEAD] + row[LEAD + count + 2 :])
    found = visual_boundaries(
        Prompt(prompt.ids, prompt.positions(made.parts), torch.ones_like(prompt.ids).bool()),
        {"video": config.video_token_id, "image": config.image_token_id},
    )
    assert [[span.grid for span in spans] for spans in found] == [[(3, 2, 3)], [(3, 2, 3)]]


def test_what_the_decoder_is_handed() -> None:
    made = bench(batch=2)
    seen: dict[str, Any] = {}
    handle = made.parts.text.register_forward_pre_hook(lambda _, args, kwargs: seen.update(kwargs), with_kwargs=True)
    try:
        first_logits(made)
    finally:
        handle.remove()
    assert torch.equal(made.prompt.embeds(made.parts), seen["inputs_embeds"])
    assert torch.equal(made.prompt.positions(made.parts), seen["position_ids"][-3:])
    assert not torch.equal(made.prompt.features.tokens[:18], made.prompt.features.tokens[18:])


def test_the_clip_is_what_the_processor_makes_of_it() -> None:
    _, processor = load(None, "cpu")
    expected = model_inputs(processor, [Conversation("What?", (load_clip(demo_clip(), frames=16),))])
    assert expected["video_grid_thw"].tolist() == [[8, 12, 12]]
    pixels = KINDS["qwen2_5_vl"].pixels(processor.video_processor, demo_clip(), (8, 6, 6), 2)
    patches = len(expected["pixel_values_videos"])
    assert torch.equal(pixels[:patches], expected["pixel_values_videos"])
    assert pixels.shape == (2 * patches, expected["pixel_values_videos"].shape[1])
    assert not torch.equal(pixels[:patches], pixels[patches:])


@pytest.mark.parametrize("grid", [(1, 1, 1), (3, 2, 5), (11, 1, 3)])
def test_clips_of_any_grid(grid: tuple[int, int, int]) -> None:
    kind = KINDS["qwen2_5_vl"]
    pixels = kind.pixels(kind.processor(bench().parts.model.config), demo_clip(), grid, 1)
    assert pixels.shape == (4 * grid[0] * grid[1] * grid[2], 3 * 2 * 14 * 14)
    assert float(pixels.std()) > 0.1


def test_random_features_are_of_the_size_of_token_embeddings() -> None:
    parts = bench().parts
    request = SpeedRequest({}, grid=(2, 4, 4), batch=2)
    features = random_features(parts, request).tokens
    size = parts.text.get_input_embeddings().weight.detach().std()
    assert features.shape == (64, 32)
    assert 0.8 < float(features.std() / size) < 1.25
    assert not torch.equal(features[:32], features[32:])
    still = random_features(parts, SpeedRequest({}, grid=(2, 4, 4), static=1.0)).tokens
    assert torch.cosine_similarity(still[:16], still[16:]).mean() > 0.9


def test_a_prompt_that_is_too_long() -> None:
    parts = bench().parts
    rest = LEAD + 2
    require_room(parts, SpeedRequest({}, grid=(3, 32, 32), text=1024 - rest - 5, new_tokens=5))
    with pytest.raises(InvalidValueError, match=r"4092 tokens, which with 5 .* more than the 4096"):
        require_room(parts, SpeedRequest({}, grid=(3, 32, 32), text=1024 - rest - 4, new_tokens=5))
