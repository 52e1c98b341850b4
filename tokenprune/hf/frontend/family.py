# SPDX-License-Identifier: Apache-2.0
"""What the front end has to be told of a model family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from tokenprune.hf.encoder import VisionEncoder


@dataclass(frozen=True, eq=False)
class Parts:
    """A model's parts; classes of the library, whose stubs hide what is needed of them.

    >>> from tokenprune_qwen25vl.family import QWEN25VL
    >>> parts = QWEN25VL.parts(model)
    >>> parts.model is model, len(parts.text.layers)
    (True, 8)

    Args:
        model: the model with the language head.
        prompt: the module that joins vision and text.
        text: the decoder.
        tower: the vision tower. One that has ``spatial_merge_size`` is called with ``pixels, grid_thw=...`` and gives
            out ``pooler_output`` ``(N, D)``: its clips can be encoded once for many questions.
        encoder: where its signals can be read; None: nowhere.
    """

    model: Any
    prompt: Any
    text: Any
    tower: Any
    encoder: VisionEncoder | None = None


class Family(Protocol):
    """A model family; implementations import nothing heavy before they are asked for parts."""

    @property
    def name(self) -> str:
        """Of the adapter, for messages."""
        ...

    @property
    def model_class(self) -> str:
        """Name of the library's class that loads its checkpoints with a language head."""
        ...

    @property
    def known(self) -> Sequence[str]:
        """Ids that are guessed at where a name is misspelt."""
        ...

    def declines(self, source: str, config: Mapping[str, Any]) -> str | None:
        """None if this is the configuration (``config.json``) of one of the family, or what it is instead."""
        ...

    def parts(self, model: nn.Module) -> Parts:
        """Parts of a model of this family; raises :class:`tokenprune.UnsupportedModeError` for another."""
        ...

    def shipped(self) -> Path:
        """Directory of the checkpoint that ships with the adapter; raises ``FileNotFoundError`` where there is none."""
        ...

    def demo(self) -> Path:
        """A clip for trying the model out; raises ``FileNotFoundError`` where there is none."""
        ...

    def unknown_words(self, question: str) -> tuple[str, ...]:
        """Words that the shipped model was not taught."""
        ...


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model with its processor, ready to be asked.

    >>> from tokenprune_qwen25vl.family import QWEN25VL
    >>> Loaded(model, processor, QWEN25VL.parts(model)).parts.model is model
    True
    """

    model: Any
    processor: Any
    parts: Parts
