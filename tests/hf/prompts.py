# SPDX-License-Identifier: Apache-2.0
"""Prompts for the tiny Qwen2.5-VL: rows of text, videos and images, padded on the left, turn after turn."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from qwen25vl.tiny import tiny_config, tiny_model
from torch import Tensor

MERGE = 2
"""Patches that make one token, along each side."""
TEXT = 250
"""Ids below are text, those from here on may be placeholders and other control tokens."""
PATCH = 3 * 2 * 14 * 14
"""Numbers in a patch: colours x frames of a temporal patch x height x width."""


@dataclass(frozen=True)
class Clip:
    """A video, or a one-frame image, of random pixels in scenes of two frames, of which half stands still."""

    frames: int
    height: int
    width: int
    modality: str = "video"

    @property
    def count(self) -> int:
        return self.frames * self.height * self.width

    @property
    def grid_thw(self) -> list[int]:
        return [self.frames, self.height * MERGE, self.width * MERGE]

    def pixels(self, seed: int) -> Tensor:
        """``(patches, PATCH)``; of each scene the first half of the tokens moves only a little."""
        draw = torch.Generator().manual_seed(seed)
        shape = (self.height * self.width, MERGE * MERGE * PATCH)
        still = torch.arange(shape[0]).unsqueeze(1) < shape[0] // 2
        frames: list[Tensor] = []
        for frame in range(self.frames):
            if frame % 2 == 0:
                scene = torch.randn(shape, generator=draw)
            noise = torch.randn(shape, generator=draw)
            frames.append(torch.where(still, scene + 0.01 * noise, scene + noise))
        return torch.cat(frames).view(-1, PATCH)


def image(height: int, width: int) -> Clip:
    return Clip(1, height, width, "image")


Part = int | Clip
"""So many random text tokens, or a video or image with its start and end tokens."""


@dataclass(frozen=True, eq=False)
class Placed:
    """A clip of a prompt row: ``column`` is that of its first visual token."""

    clip: Clip
    column: int
    pixels: Tensor


@dataclass(frozen=True, eq=False)
class Prompt:
    """A batch as it is passed to the model.

    Args:
        ids: ``(B, L)`` ids.
        mask: ``(B, L)`` int64, 0 for padding.
        clips: per row its videos and images, in order.
        prefills: ``[start, stop)`` columns of each turn's prompt.
    """

    ids: Tensor
    mask: Tensor
    clips: list[list[Placed]]
    prefills: list[tuple[int, int]]

    @property
    def length(self) -> int:
        return self.ids.shape[1]

    @property
    def types(self) -> Tensor:
        """``(B, L)`` modality of each token: 0 text, 1 image, 2 video."""
        config = shared_config()
        return (self.ids == config.image_token_id).int() + 2 * (self.ids == config.video_token_id).int()

    def answered(self, new: Tensor) -> Prompt:
        """The same followed by generated tokens ``(B, n)``."""
        return replace(
            self, ids=torch.cat([self.ids, new], dim=1), mask=torch.cat([self.mask, torch.ones_like(new)], dim=1)
        )

    def then(self, rows: Sequence[Sequence[Part]], seed: int = 1) -> Prompt:
        """The same followed by a further turn; shorter rows are padded before their new tokens."""
        more = prompt(rows, seed, first_column=self.length)
        return Prompt(
            torch.cat([self.ids, more.ids], dim=1),
            torch.cat([self.mask, more.mask], dim=1),
            [old + new for old, new in zip(self.clips, more.clips)],
            self.prefills + more.prefills,
        )

    def as_one_prefill(self) -> Prompt:
        """The same tokens, prefilled all at once."""
        return replace(self, prefills=[(0, self.length)])

    def repeated(self, times: int) -> Prompt:
        """Each row ``times`` times, as beams and return sequences run."""
        return self.taken([row for row in range(len(self.ids)) for _ in range(times)])

    def taken(self, rows: list[int]) -> Prompt:
        """These rows, in this order."""
        return Prompt(self.ids[rows], self.mask[rows], [self.clips[row] for row in rows], self.prefills)

    def inputs(self, since: int = 0) -> dict[str, Any]:
        """What a processor returns; with ``since`` only the tokens and clips from that column on, but the full mask."""
        given: dict[str, Any] = {
            "input_ids": self.ids[:, since:],
            "attention_mask": self.mask,
            "mm_token_type_ids": self.types[:, since:],
        }
        for modality, pixels, grid in (
            ("video", "pixel_values_videos", "video_grid_thw"),
            ("image", "pixel_values", "image_grid_thw"),
        ):
            found = self.placed(modality, since)
            if found:
                given[pixels] = torch.cat([p.pixels for p in found])
                given[grid] = torch.tensor([p.clip.grid_thw for p in found])
        return given

    def placed(self, modality: str, since: int = 0) -> list[Placed]:
        """The batch's clips of one modality, in the order in which the model takes their features."""
        return [p for row in self.clips for p in row if p.clip.modality == modality and p.column >= since]

    def positions(self, model: Any) -> Tensor:
        """``(3, B, L)`` M-RoPE positions as the library computes them for the whole sequence."""
        grids = {
            f"{modality}_grid_thw": torch.tensor([p.clip.grid_thw for p in self.placed(modality)])
            for modality in ("video", "image")
            if self.placed(modality)
        }
        return model.model.get_rope_index(self.ids, self.types, attention_mask=self.mask, **grids)[0]


def prompt(rows: Sequence[Sequence[Part]], seed: int = 0, first_column: int = 0) -> Prompt:
    """Build a batch from its rows' parts; shorter rows are padded on the left."""
    config = shared_config()
    draw = torch.Generator().manual_seed(seed)
    built: list[tuple[list[int], list[tuple[Clip, int]]]] = []
    for parts in rows:
        ids: list[int] = []
        clips: list[tuple[Clip, int]] = []
        for part in parts:
            if isinstance(part, int):
                ids += torch.randint(0, TEXT, (part,), generator=draw).tolist()
                continue
            placeholder = config.video_token_id if part.modality == "video" else config.image_token_id
            clips.append((part, len(ids) + 1))
            ids += [config.vision_start_token_id, *[placeholder] * part.count, config.vision_end_token_id]
        built.append((ids, clips))
    length = max(len(ids) for ids, _ in built)
    placed: list[list[Placed]] = []
    for row, (ids, clips) in enumerate(built):
        shift = length - len(ids) + first_column
        names = [zlib.crc32(repr((seed, row, place, clip)).encode()) for place, (clip, _) in enumerate(clips)]
        placed.append([Placed(clip, column + shift, clip.pixels(name)) for name, (clip, column) in zip(names, clips)])
    pad = config.text_config.pad_token_id
    return Prompt(
        torch.tensor([[pad] * (length - len(ids)) + ids for ids, _ in built]),
        torch.tensor([[0] * (length - len(ids)) + [1] * len(ids) for ids, _ in built]),
        placed,
        [(first_column, first_column + length)],
    )


@lru_cache
def _model(attention: str, user: str) -> Any:
    model = tiny_model()
    model.set_attn_implementation(attention)
    return model


def shared_model(attention: str = "sdpa", user: str = "") -> Any:
    """One model per attention backend and user for all tests of a process; M-RoPE state of earlier calls is gone."""
    model = _model(attention, user)
    model.model.rope_deltas = None
    return model


@lru_cache
def shared_config() -> Any:
    return tiny_config()
