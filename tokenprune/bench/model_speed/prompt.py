# SPDX-License-Identifier: Apache-2.0
"""The prompt that everyone is measured on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tokenprune.bench.model_speed.clip_kind import ClipKind, clip_kind
from tokenprune.bench.model_speed.layout import LEAD
from tokenprune.bench.speed.content import scene_features
from tokenprune.bench.speed.request import SpeedRequest
from tokenprune.errors import InvalidValueError
from tokenprune.hf.frontend.family import Parts
from tokenprune.hf.frontend.features import VideoFeatures

SEED = 0
CONTROL = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")


@dataclass(frozen=True, eq=False)
class SpeedPrompt:
    """Rows of text, one clip and text, with no padding; all rows have the same text.

    Args:
        kind: how the model is shown its clips.
        ids: ``(B, L)``.
        columns: ``(T*H*W,)`` columns of the visual tokens, the same in each row.
        features: of all clips, ``(B * T*H*W, D)``: what the decoder is shown in place of them.
        beside: what ``generate`` is given beside the ids and their mask.
    """

    kind: ClipKind
    ids: Tensor
    columns: Tensor
    features: VideoFeatures
    beside: Mapping[str, Tensor]

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

    def showing(self, features: VideoFeatures) -> SpeedPrompt:
        """The same prompt with what the vision tower, or somebody in its place, made of the clips."""
        return replace(self, features=features)

    def inputs(self) -> dict[str, Tensor]:
        """What ``generate`` takes where the clips are encoded already."""
        return {"input_ids": self.ids, "attention_mask": torch.ones_like(self.ids), **self.beside}

    def encoded(self, parts: Parts, pixels: Tensor) -> VideoFeatures:
        """What the model makes of the clips."""
        return self.kind.encode(parts, pixels, self)

    def shown(self, parts: Parts) -> AbstractContextManager[None]:
        """While this is open the decoder is handed the prompt's features."""
        return self.kind.shown(parts, self)

    def positions(self, parts: Parts) -> Tensor:
        """Positions as the decoder takes them."""
        return self.kind.positions(parts, self)

    @torch.no_grad()
    def embeds(self, parts: Parts) -> Tensor:
        """``(B, L, D)`` what the decoder is handed."""
        embeds = parts.text.get_input_embeddings()(self.ids)
        embeds[:, self.columns] = self.features.tokens.view(self.rows, self.visual_tokens, -1).to(embeds.dtype)
        return embeds


def require_room(parts: Parts, request: SpeedRequest) -> None:
    """Raise :class:`InvalidValueError` for a prompt and an answer that are longer than the model can take."""
    config: Any = parts.model.config
    length = LEAD + clip_kind(config).layout(config, request.grid).length + request.text
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
    kind = clip_kind(config)
    layout = kind.layout(config, request.grid)
    lead, times, rest = _text_ids(config, LEAD + layout.times + request.text).split([LEAD, layout.times, request.text])
    row = torch.cat([lead, layout.written(times), rest])
    ids = row.expand(request.batch, -1).contiguous().to(device)
    return SpeedPrompt(
        kind=kind,
        ids=ids,
        columns=(LEAD + layout.visual).to(device),
        features=VideoFeatures(torch.empty(0, device=device)),
        beside=kind.beside(config, ids, pixels, request.grid),
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
    control = [getattr(config, name, None) for name in CONTROL]
    ends = (text.bos_token_id, *_ids(text.eos_token_id), text.pad_token_id)
    allowed = torch.ones(text.vocab_size, dtype=torch.bool)
    allowed[[token for token in (*control, *ends) if token is not None]] = False
    choices = allowed.nonzero().squeeze(1)
    draw = torch.Generator().manual_seed(SEED)
    return choices[torch.randint(len(choices), (count,), generator=draw)]


def _ids(value: int | Iterable[int] | None) -> tuple[int | None, ...]:
    return (value,) if value is None or isinstance(value, int) else tuple(value)
