# SPDX-License-Identifier: Apache-2.0
"""A tiny random model of every family of the table: fp32, on the CPU, weights spread wide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from families import layouts
from families.layouts import (
    AUDIO,
    BOS,
    CLOSE,
    END,
    EOS,
    IDS,
    IMAGE,
    MARKED,
    OPEN,
    PAD,
    START,
    VIDEO,
    Clip,
    Part,
    Row,
    Write,
)

from tokenprune.adapter import VisualSpan
from tokenprune.hf.families import table
from tokenprune.hf.families.family import Family
from tokenprune.testing import VisualPrompt

Pixels = Callable[["Tiny", Sequence[Sequence[tuple[Clip, torch.Generator]]]], dict[str, Any]]

TEXT_MODEL = {
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
}
TOWER = {"depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "patch_size": 4}
ROPE = {"rope_type": "default", "rope_theta": 1e4}


@dataclass(frozen=True)
class Tiny:
    """How a tiny model of a family is made, and how its prompts are written.

    Args:
        family: the row of the table.
        config: keyword arguments of the model's configuration.
        write: how a video or image stands in a prompt.
        pixels: from each row's clips to the model's pixel inputs.
        clips: a video, another one, an image.
        patch: numbers of a patch.
        images: whether images can stand beside videos.
        name: a name for tests, where a family has several.
        recurrent: attribute of a layer that holds its recurrent mixer; empty: all attend.
        pictures: images in a row; of LLaVA-OneVision a single one would be cut into tiles.
    """

    family: Family
    config: dict[str, Any]
    write: Write
    pixels: Pixels
    clips: tuple[Clip, Clip, Clip]
    patch: int = 0
    images: bool = True
    name: str = ""
    pictures: int = 1
    recurrent: str = ""

    def __str__(self) -> str:
        return self.name or self.family.name

    @property
    def model_class(self) -> Any:
        """The library's class; None where this release has none."""
        import transformers

        return getattr(transformers, self.family.model_class, None)

    @property
    def rows(self) -> list[list[Part]]:
        """A video; an image between two, or two videos; text alone."""
        first, second, picture = self.clips
        pictures: list[Part] = [1, picture] * self.pictures if self.images else []
        return [[3, first, 5], [*pictures, 2, second, 19, first, 6], [9]]


_models: dict[str, Any] = {}


def tiny_model(case: Tiny) -> Any:
    """One model per family for all tests of a process; M-RoPE state of earlier calls is gone."""
    if str(case) not in _models:
        _models[str(case)] = new_model(case)
    model = _models[str(case)]
    for module in (model, model.model):
        if hasattr(module, "rope_deltas"):
            module.rope_deltas = None
    return model


def new_model(case: Tiny) -> Any:
    kind = case.model_class
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind(kind.config_class(**case.config)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0.0, 0.3)
    return model


def prompt(case: Tiny, rows: Sequence[Sequence[Part]], seeds: Sequence[int] | None = None) -> VisualPrompt:
    """A batch of these rows, padded on the left; a row's tokens follow from its seed alone."""
    written: list[Row] = []
    clips: list[list[tuple[Clip, torch.Generator]]] = []
    for number, parts in enumerate(rows):
        seed = number if seeds is None else seeds[number]
        draw, row = torch.Generator().manual_seed(seed), Row()
        clips.append([])
        for place, part in enumerate(parts):
            if isinstance(part, int):
                row.text(*torch.randint(0, 50, (part,), generator=draw).tolist())
            else:
                case.write(row, part)
                clips[-1].append((part, torch.Generator().manual_seed(1000 * seed + place)))
        written.append(row)
    length = max(len(row.ids) for row in written)
    pads = [length - len(row.ids) for row in written]
    types = torch.tensor([[0] * pad + row.types for pad, row in zip(pads, written)])
    inputs: dict[str, Any] = {
        "input_ids": torch.tensor([[PAD] * pad + row.ids for pad, row in zip(pads, written)]),
        "attention_mask": torch.tensor([[0] * pad + [1] * len(row.ids) for pad, row in zip(pads, written)]),
    }
    if case.pixels is patches:
        inputs["mm_token_type_ids"] = types
    if any(each.name == "moe_mm_token_type_ids" for each in case.family.carried):
        inputs["moe_mm_token_type_ids"] = (types > 0).int()
    spans = [
        [VisualSpan(span.modality, span.grid, span.columns + pad) for span in row.spans]
        for pad, row in zip(pads, written)
    ]
    return VisualPrompt({**inputs, **case.pixels(case, clips)}, spans)


def patches(case: Tiny, clips: Sequence[Sequence[tuple[Clip, torch.Generator]]]) -> dict[str, Any]:
    """Flat patches and their grids, as M-RoPE models take them."""
    found: dict[str, Any] = {}
    for modality, pixels, grids in (
        ("video", "pixel_values_videos", "video_grid_thw"),
        ("image", "pixel_values", "image_grid_thw"),
    ):
        mine = [(clip, draw) for row in clips for clip, draw in row if clip.modality == modality]
        if mine:
            shapes = [(_times(case, clip), 2 * clip.height, 2 * clip.width) for clip, _ in mine]
            found[pixels] = torch.cat(
                [torch.randn(t * h * w, case.patch, generator=draw) for (t, h, w), (_, draw) in zip(shapes, mine)]
            )
            found[grids] = torch.tensor(shapes)
    return found


def timed_patches(case: Tiny, clips: Sequence[Sequence[tuple[Clip, torch.Generator]]]) -> dict[str, Any]:
    """The same for the thinkers of Qwen-Omni, which are told the seconds of a step and read modalities off the ids."""
    found = patches(case, clips)
    if "video_grid_thw" in found:
        found["video_second_per_grid"] = torch.ones(len(found["video_grid_thw"]))
    return found


def _times(case: Tiny, clip: Clip) -> int:
    """Frames of patches; Ernie's resampler makes one of two."""
    merged = case.family is table.ERNIE45_VL and clip.modality == "video"
    return clip.frames * (2 if merged else 1)


def sized_patches(case: Tiny, clips: Sequence[Sequence[tuple[Clip, torch.Generator]]]) -> dict[str, Any]:
    """The same for VideoLLaMA 3, which wants to be told how many patches make a token."""
    found = patches(case, clips)
    for modality in ("video", "image"):
        if f"{modality}_grid_thw" in found:
            found[f"{modality}_merge_sizes"] = torch.full((len(found[f"{modality}_grid_thw"]),), 2)
    return found


def videos(case: Tiny, clips: Sequence[Sequence[tuple[Clip, torch.Generator]]]) -> dict[str, Any]:
    """Whole frames: ``(videos, T, 3, S, S)``, and images beside them."""
    side = case.config["vision_config"]["image_size"]
    drawn = {
        modality: [
            torch.randn(c.frames, 3, side, side, generator=draw)
            for row in clips
            for c, draw in row
            if c.modality == modality
        ]
        for modality in ("video", "image")
    }
    found: dict[str, Any] = {}
    if drawn["video"]:
        found["pixel_values_videos"] = torch.stack(drawn["video"])
    if drawn["image"]:
        found["pixel_values"] = torch.cat(drawn["image"])
        found["image_sizes"] = torch.tensor([[side, side]] * len(drawn["image"]))
        counts = [sum(clip.modality == "image" for clip, _ in row) for row in clips]
        found["batch_num_images"] = torch.tensor(counts)
    return found


def frames(case: Tiny, clips: Sequence[Sequence[tuple[Clip, torch.Generator]]]) -> dict[str, Any]:
    """Every frame an image: ``(images, 3, S, S)``."""
    side = case.config["vision_config"]["image_size"]
    drawn = [torch.randn(c.frames, 3, side, side, generator=draw) for row in clips for c, draw in row]
    return {"pixel_values": torch.cat(drawn)} if drawn else {}


def padded_frames(case: Tiny, clips: Sequence[Sequence[tuple[Clip, torch.Generator]]]) -> dict[str, Any]:
    """The same a row at a time, ``(B, most, 3, S, S)``; what is all zero is padding."""
    side = case.config["vision_config"]["image_size"]
    most = max(sum(clip.frames for clip, _ in row) for row in clips)
    if not most:
        return {}
    found = torch.zeros(len(clips), most, 3, side, side)
    for number, row in enumerate(clips):
        drawn = [torch.randn(c.frames, 3, side, side, generator=draw) for c, draw in row]
        if drawn:
            found[number, : sum(map(len, drawn))] = torch.cat(drawn)
    return {"pixel_values": found}


def _text(**more: Any) -> dict[str, Any]:
    return {**TEXT_MODEL, **more}


def _moe(**more: Any) -> dict[str, Any]:
    return _text(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, decoder_sparse_step=1, **more)


NEVER = 999
"""No id of the vocabulary: an answer of random weights that begins an audio would ask the library for its length."""


def _omni(**more: Any) -> dict[str, Any]:
    """Ids by either of the names that releases have, and a tower for audio."""
    audio = {"d_model": 16, "encoder_attention_heads": 2, "encoder_ffn_dim": 16, "encoder_layers": 1, "num_mel_bins": 8}
    ids = {"image": IMAGE, "video": VIDEO, "audio": AUDIO}
    return {
        "audio_config": {**audio, "output_dim": 32, **more},
        **{f"{kind}_token_{name}": value for kind, value in ids.items() for name in ("id", "index")},
        "audio_start_token_id": NEVER,
        "vision_start_token_id": START,
        "vision_end_token_id": END,
    }


FREE = (Clip(3, 2, 3), Clip(4, 2, 2), layouts.image(2, 3))
SQUARE = (Clip(3, 2, 2), Clip(3, 2, 2), layouts.image(2, 2))
QWEN3_TOWER = {
    **TOWER,
    "depth": 3,
    "out_hidden_size": 32,
    "num_position_embeddings": 16,
    "deepstack_visual_indexes": [0, 1, 2],
}
QWEN3_ROPE = {**ROPE, "mrope_section": [2, 1, 1], "mrope_interleaved": True}
HYBRID_TOWER = {**TOWER, "out_hidden_size": 32, "num_position_embeddings": 16}
QWEN3 = {"vision_config": QWEN3_TOWER, **MARKED}
SIGLIP = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 4,
}
GLM = {
    "vision_config": {**TOWER, "out_hidden_size": 32, "image_size": 16},
    **IDS,
    "image_start_token_id": START,
    "image_end_token_id": END,
    "video_start_token_id": OPEN,
    "video_end_token_id": CLOSE,
}
GLM_ROPE = {**ROPE, "mrope_section": [1, 1, 2], "partial_rotary_factor": 1.0}
PATCH = 3 * 2 * 4 * 4


def _qwen3(name: str, write: Write) -> Tiny:
    config = {"text_config": _text(head_dim=8, rope_parameters=QWEN3_ROPE), **QWEN3}
    return Tiny(table.QWEN3_VL, config, write, patches, FREE, PATCH, name=name)


def _internvl(name: str, kind: str) -> Tiny:
    more = {"head_dim": 8} if kind == "qwen3" else {}
    config: dict[str, Any] = {
        "text_config": _text(model_type=kind, **more),
        "vision_config": {**SIGLIP, "image_size": 16, "model_type": "internvl_vision"},
        "image_token_id": IMAGE,
        "image_seq_length": 4,
        "downsample_ratio": 0.5,
    }
    return Tiny(table.INTERNVL, config, layouts.runs_apart(7, IMAGE), frames, SQUARE, name=name)


def _hybrid(**more: Any) -> dict[str, Any]:
    """Six layers, of which the third and the sixth attend, with gates and partial rotation."""
    return _text(
        num_hidden_layers=6,
        full_attention_interval=3,
        head_dim=16,
        rope_parameters={**ROPE, "mrope_section": [1, 1, 0], "mrope_interleaved": True, "partial_rotary_factor": 0.25},
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        **more,
    )


CASES = (
    Tiny(
        table.QWEN2_VL,
        {
            "text_config": _text(rope_parameters={**ROPE, "mrope_section": [1, 1, 2]}),
            "vision_config": {"depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "patch_size": 4},
            **MARKED,
        },
        layouts.one_run,
        patches,
        FREE,
        PATCH,
    ),
    _qwen3("qwen3_vl", layouts.nested),
    _qwen3("qwen3_vl_flat", layouts.flat),
    Tiny(
        table.QWEN3_VL_MOE,
        {"text_config": _moe(head_dim=8, rope_parameters=QWEN3_ROPE), **QWEN3},
        layouts.nested,
        patches,
        FREE,
        PATCH,
    ),
    Tiny(
        table.QWEN3_5,
        {"text_config": _hybrid(), "vision_config": HYBRID_TOWER, **MARKED},
        layouts.nested,
        patches,
        FREE,
        PATCH,
        recurrent="linear_attn",
    ),
    Tiny(
        table.QWEN3_5_MOE,
        {
            "text_config": _hybrid(
                num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, shared_expert_intermediate_size=16
            ),
            "vision_config": HYBRID_TOWER,
            **MARKED,
        },
        layouts.nested,
        patches,
        FREE,
        PATCH,
        recurrent="linear_attn",
    ),
    Tiny(
        table.COSMOS3_EDGE,
        {
            "text_config": _text(head_dim=8, rope_parameters={**ROPE, "mrope_section": [2, 1, 1]}),
            "vision_config": {**SIGLIP, "num_patches": 16},
            "projector_hidden_size": 24,
            **MARKED,
        },
        layouts.nested,
        patches,
        FREE,
        3 * 4 * 4,
    ),
    Tiny(
        table.QWEN25_OMNI,
        {
            "text_config": _text(rope_parameters={**ROPE, "mrope_section": [1, 1, 2]}),
            "vision_config": {**TOWER, "out_hidden_size": 32, "fullatt_block_indexes": [1], "window_size": 16},
            **_omni(),
        },
        layouts.one_run,
        timed_patches,
        FREE,
        PATCH,
    ),
    Tiny(
        table.QWEN3_OMNI,
        {
            "text_config": _moe(head_dim=8, rope_parameters=QWEN3_ROPE),
            "vision_config": QWEN3_TOWER,
            **_omni(downsample_hidden_size=8),
        },
        layouts.one_run,
        timed_patches,
        FREE,
        PATCH,
    ),
    Tiny(
        table.GLM4V,
        {"text_config": _text(rope_parameters=GLM_ROPE), **GLM},
        layouts.bounded,
        patches,
        FREE,
        PATCH,
        False,
    ),
    Tiny(
        table.GLM4V_MOE,
        {
            "text_config": _text(
                head_dim=16,
                rope_parameters={**GLM_ROPE, "partial_rotary_factor": 0.5},
                n_routed_experts=4,
                num_experts_per_tok=2,
                moe_intermediate_size=16,
                n_group=1,
                topk_group=1,
            ),
            **GLM,
        },
        layouts.bounded,
        patches,
        FREE,
        PATCH,
        False,
    ),
    Tiny(
        table.GLM46V,
        {
            "text_config": _text(model_type="glm4v_text", rope_parameters=GLM_ROPE),
            **GLM,
            "vision_config": {**GLM["vision_config"], "model_type": "glm4v_vision"},
        },
        layouts.bounded,
        patches,
        FREE,
        PATCH,
        False,
    ),
    Tiny(
        table.ERNIE45_VL,
        {
            "text_config": _text(
                rope_parameters={**ROPE, "mrope_section": [1, 1, 2]},
                moe_num_experts=4,
                moe_k=2,
                moe_intermediate_size=[16, 16],
                moe_num_shared_experts=1,
                mlp_layer_types=["dense", "sparse", "sparse", "sparse"],
            ),
            "vision_config": TOWER,
            **IDS,
        },
        layouts.one_run,
        patches,
        FREE,
        3 * 4 * 4,
    ),
    Tiny(
        table.LLAVA_ONEVISION,
        {
            "text_config": _text(model_type="qwen2"),
            "vision_config": {
                **SIGLIP,
                "model_type": "siglip_vision_model",
                "image_size": 12,
                "vision_use_head": False,
            },
            "image_token_index": IMAGE,
            "video_token_index": VIDEO,
            "image_grid_pinpoints": [[12, 12], [12, 24]],
        },
        layouts.with_tail,
        videos,
        (Clip(3, 2, 2), Clip(3, 2, 2), layouts.image(3, 3)),
        pictures=2,
    ),
    Tiny(
        table.LLAVA_NEXT_VIDEO,
        {
            "text_config": _text(model_type="llama"),
            "vision_config": {**SIGLIP, "model_type": "clip_vision_model", "image_size": 16, "projection_dim": 16},
            "image_token_index": IMAGE,
            "video_token_index": VIDEO,
        },
        layouts.bare_run,
        videos,
        SQUARE,
        images=False,
    ),
    _internvl("internvl", "qwen2"),
    _internvl("internvl_qwen3", "qwen3"),
    Tiny(
        table.SMOLVLM,
        {
            "text_config": _text(model_type="llama"),
            "vision_config": {**SIGLIP, "image_size": 16},
            "image_token_id": IMAGE,
            "scale_factor": 2,
        },
        layouts.runs_apart(13, IMAGE),
        padded_frames,
        SQUARE,
    ),
    Tiny(
        table.VIDEO_LLAMA_3,
        {"text_config": _text(model_type="qwen2"), "vision_config": {**SIGLIP}, **IDS},
        layouts.runs_apart(9, VIDEO),
        sized_patches,
        (Clip(3, 1, 6), Clip(3, 1, 4), layouts.image(1, 6)),
        3 * 4 * 4,
    ),
)
