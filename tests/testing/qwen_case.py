# SPDX-License-Identifier: Apache-2.0
"""A tiny random Qwen2.5-VL and prompts of known layout, for the laws of adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from hf.prompts import Clip, Part, image, prompt, shared_model
from torch import nn

from tokenprune.adapter import VisualSpan
from tokenprune.testing import VisualPrompt

ROWS: list[list[Part]] = [[3, Clip(3, 2, 3), 5], [1, image(2, 3), 2, Clip(2, 2, 2), 3, Clip(4, 2, 2), 6], [9]]


class QwenCase:
    """The factories; beside :class:`tokenprune.testing.AdapterConformance` they make a test."""

    rows = 3
    images = True

    def make_model(self) -> Any:
        return shared_model()

    def decoder(self, model: Any) -> nn.Module:
        return model.model.language_model

    def make_prompt(self, rows: Sequence[int]) -> VisualPrompt:
        batch = prompt([ROWS[row] for row in rows])
        ids = {row: torch.randint(0, 250, (99,), generator=torch.Generator().manual_seed(row)) for row in rows}
        for place, row in enumerate(rows):  # the same text in every batch
            text = (batch.mask[place].bool() & (batch.ids[place] < 250)).nonzero().squeeze(1)
            batch.ids[place, text] = ids[row][: len(text)]
        clips = [
            [
                replace(placed, pixels=placed.clip.pixels(10 * row + place))
                for place, placed in enumerate(batch.clips[at])
            ]
            for at, row in enumerate(rows)
        ]
        batch = replace(batch, clips=clips)
        spans = [
            [
                VisualSpan(
                    placed.clip.modality,
                    (placed.clip.frames, placed.clip.height, placed.clip.width),
                    torch.arange(placed.column, placed.column + placed.clip.count),
                )
                for placed in row
            ]
            for row in batch.clips
        ]
        return VisualPrompt(batch.inputs(), spans)
