# SPDX-License-Identifier: Apache-2.0
"""Qwen2.5-VL as the front end and the offices are told of it; importing this module imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from tokenprune.bench.world.words import unknown_words
from tokenprune.messages import shown
from tokenprune_qwen25vl.assets import demo_clip
from tokenprune_qwen25vl.checkpoint import shipped_checkpoint

if TYPE_CHECKING:
    from tokenprune.hf.frontend.family import Parts


@dataclass(frozen=True)
class Qwen25VL:
    """A :class:`tokenprune.hf.frontend.family.Family`."""

    name: str = "qwen25vl"
    model_type: str = "qwen2_5_vl"
    model_class: str = "Qwen2_5_VLForConditionalGeneration"
    known: tuple[str, ...] = tuple(f"Qwen/Qwen2.5-VL-{size}B-Instruct" for size in (3, 7, 32, 72))

    def declines(self, source: str, config: Mapping[str, Any]) -> str | None:
        """By the model type."""
        kind = config.get("model_type")
        return None if kind == self.model_type else f"takes {self.model_type} models, this one is {shown(kind)}"

    def parts(self, model: nn.Module) -> Parts:
        """Found by class inside any wrapper."""
        from tokenprune_qwen25vl.parts import require_parts

        return require_parts(model)

    def shipped(self) -> Path:
        """The small trained model."""
        return shipped_checkpoint()

    def demo(self) -> Path:
        """A clip of its world."""
        return demo_clip()

    def unknown_words(self, question: str) -> tuple[str, ...]:
        """Words that no question of its world has."""
        return unknown_words(question)


QWEN25VL = Qwen25VL()
