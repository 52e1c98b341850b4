# SPDX-License-Identifier: Apache-2.0
"""The prompt that everyone is measured on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tokenprune.bench.model_speed.layout import LEAD, ClipLayout
from tokenprune.bench.speed.content import scene_features
from tokenprune.bench.speed.request import SpeedRequest
from tokenprune.errors import InvalidValueError
from tokenprune.hf.frontend.family import Parts
from tokenprune.hf.frontend.features import VideoFeatures

SEED = 0


@dataclass(frozen=True, eq=False)
class SpeedPrompt:
    """Rows of text, one clip and text, with no padding; all rows have the same text.

    Args:
        ids: ``(B, L)``.
        grid_thw: ``(B, 3)`` patches of each clip in time, height and width.
        features: of all clips, ``(B * T*H*W, D)``: what the decoder is shown in place of them.
        little: pixels of one visual token, for a tower that has encoded before.
        columns: ``(T*H*W,)`` columns of the visual tokens, the same in each row.
        placeholder: id of a visual token.
    """

    ids: Tensor
    grid_thw: Tensor
    features: VideoFeatures
    little: Tensor
    columns: Tensor
    placeholder: int

    @property
    def rows(self) -> int:
        """Prompts in the batch."""
        return self.ids.shape[0]

    @property
    def length(self) -> int:
        """Tokens of a row."""
        return self.ids.shape[1]

    @property
    def visual_tokens(self) -> int:
        """Visual tokens of a row."""
        return len(self.columns)

    @property
    def after(self) -> int:
        """Column of the first token after the clip's last visual token."""
        return int(self.columns[-1]) + 1

    @property
    def types(self) -> Tensor:
        """``(B, L)`` modality of each token: 0 text, 2 video."""
        return 2 * (self.ids == self.placeholder).int()

    def showing(self, features: VideoFeatures) -> SpeedPrompt:
        """The same prompt with what the vision tower, or somebody in its place, made of the clips."""
        return replace(self, features=features)

    def inputs(self) -> dict[str, Tensor]:
        """What ``generate`` takes where the clips are encoded already."""
        return {
            "input_ids": self.ids,
            "attention_mask": torch.ones_like(self.ids),
            "mm_token_type_ids": self.types,
            "pixel_values_videos": self.little,
            "video_grid_thw": self.grid_thw,
        }

    def positions(self, parts: Parts) -> Tensor:
        """``(3, B, L)`` M-RoPE positions, the library's own."""
        library: Any = parts.prompt  # its annotations ask for torch's old tensor types
        positions, _ = library.get_rope_index(self.ids, self.types, video_grid_thw=self.grid_thw)
        return positions

    @torch.no_grad()
    def embeds(self, parts: Parts) -> Tensor:
        """``(B, L, D)`` what the decoder is handed."""
        embeds = parts.text.get_input_embeddings()(self.ids)
        embeds[:, self.columns] = self.features.tokens.view(self.rows, self.visual_tokens, -1).to(embeds.dtype)
        return embeds


def require_room(parts: Parts, request: SpeedRequest) -> None:
    """Raise :class:`InvalidValueError` for a prompt and an answer that are longer than the model can take."""
    length = LEAD + ClipLayout.of(parts.model.config, request.grid).length + request.text
    limit = int(parts.text.config.max_position_embeddings)
    if length + request.new_tokens > limit:
        raise InvalidValueError(
            f"grid {request.grid} makes a prompt of {length} tokens, which with {request.new_tokens} decoded after the "
            f"first is more than the {limit} of the model"
        )


def make_prompt(parts: Parts, request: SpeedRequest, pixels: Tensor) -> SpeedPrompt:
    """The prompt of this request, which shows no clips yet.

    Args:
        parts: the model.
        request: sizes.
        pixels: of the clips, as the tower takes them.
    """
    config: Any = parts.model.config
    device = parts.model.device
    steps, height, width = request.grid
    layout = ClipLayout.of(config, request.grid)
    lead, times, rest = _text_ids(config, LEAD + layout.times + request.text).split([LEAD, layout.times, request.text])
    row = torch.cat([lead, layout.ids(config, times), rest])
    merge = int(config.vision_config.spatial_merge_size)
    return SpeedPrompt(
        ids=row.expand(request.batch, -1).contiguous().to(device),
        grid_thw=torch.tensor([[steps, merge * height, merge * width]] * request.batch, device=device),
        features=VideoFeatures(torch.empty(0, device=device)),
        little=pixels[: merge**2].to(device),
        columns=(row == config.video_token_id).nonzero().squeeze(1).to(device),
        placeholder=int(config.video_token_id),
    )


def random_features(parts: Parts, request: SpeedRequest) -> VideoFeatures:
    """Clips for a model with random weights, of the size of its token embeddings.

    What a random tower makes of pixels means nothing: all of it is alike, or none. So the decoder is shown scenes
    whose redundancy is known (:func:`tokenprune.bench.speed.content.scene_features`).
    """
    embedding = parts.text.get_input_embeddings().weight.detach()
    scale = float(embedding[:4096].float().std())
    clips = [
        scene_features(
            request.grid,
            embedding.shape[1],
            static=request.static,
            seed=row,
            dtype=embedding.dtype,
            device=embedding.device,
        )
        for row in range(request.batch)
    ]
    tokens = torch.cat(clips).mul_(scale)
    layers = getattr(parts.model.config.vision_config, "deepstack_visual_indexes", ())
    return VideoFeatures(tokens, tuple(tokens for _ in layers))


def _text_ids(config: Any, count: int) -> Tensor:
    """Random ids that mean nothing to the model beyond text."""
    text = config.text_config
    control = (config.image_token_id, config.video_token_id, config.vision_start_token_id, config.vision_end_token_id)
    ends = (text.bos_token_id, *_ids(text.eos_token_id), text.pad_token_id)
    allowed = torch.ones(text.vocab_size, dtype=torch.bool)
    allowed[[token for token in (*control, *ends) if token is not None]] = False
    choices = allowed.nonzero().squeeze(1)
    draw = torch.Generator().manual_seed(SEED)
    return choices[torch.randint(len(choices), (count,), generator=draw)]


def _ids(value: int | Iterable[int] | None) -> tuple[int | None, ...]:
    return (value,) if value is None or isinstance(value, int) else tuple(value)
