# SPDX-License-Identifier: Apache-2.0
"""What the command line asks of an adapter: load a model by name, and answer questions about video files with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from tokenprune.answers import Answer, ClipQuestion, DamageLike
from tokenprune.pipeline import Pipeline


class PreparedQuestion(Protocol):
    """A question with its frames decoded and resized, ready to be answered any number of times."""

    @property
    def frames(self) -> int:
        """Frames that were sampled."""
        ...

    @property
    def sampled_fps(self) -> float:
        """How many of them make a second of the video."""
        ...

    @property
    def damage(self) -> DamageLike | None:
        """What of the file was lost; None where nothing was."""
        ...


class VideoModel(Protocol):
    """A loaded model."""

    @property
    def module(self) -> nn.Module:
        """The model itself, as :func:`tokenprune.attach` takes it."""
        ...

    def prepare(self, question: ClipQuestion) -> PreparedQuestion:
        """Read the file and make the model's inputs; raises :class:`tokenprune.errors.VideoError` for a bad file."""
        ...

    def pictures(self, prepared: PreparedQuestion) -> npt.NDArray[np.uint8]:
        """Frames ``(F, height, width, 3)`` RGB as the model is shown them; tokens cover equally many each.

        Raises :class:`tokenprune.errors.InvalidValueError` for a question that is encoded: its frames are gone.
        """
        ...

    def encoded(self, prepared: PreparedQuestion) -> PreparedQuestion:
        """The same question with the vision tower's work done, for answers that are not to repeat it."""
        ...

    def windows(
        self, question: ClipQuestion, questions: Sequence[str], count: int
    ) -> Sequence[Sequence[PreparedQuestion]]:
        """A video in ``count`` parts of equally many frames, one after the other, each encoded once.

        Args:
            question: how the video is read; ``frames`` of it are those of one part.
            questions: asked about each part instead of its own.
            count: parts, at least 1.

        Returns:
            For each part its questions, ready to be answered.
        """
        ...

    def watched(
        self, prepared: PreparedQuestion, pipeline: Pipeline | None, max_new_tokens: int
    ) -> tuple[Answer, Tensor]:
        """As :meth:`answer`, and the first new token's log probabilities ``(V,)``, fp64, on the CPU."""
        ...

    def answer(self, prepared: PreparedQuestion, pipeline: Pipeline | None, max_new_tokens: int) -> Answer:
        """Answer greedily; with a pipeline through a session of its own, with None by the plain model."""
        ...


class VideoRunner(Protocol):
    """An adapter's way from a model's name to answers."""

    def declines(self, model: str) -> str | None:
        """None if this adapter can load the model of this path or id, or one line that says why not.

        Raises :class:`tokenprune.errors.ModelLoadError` where there is no such model at all.
        """
        ...

    def load(self, model: str | None, device: str | None, dtype: str | None, attn: str | None) -> VideoModel:
        """Load a model; None is the small one that ships with the adapter, None elsewhere the adapter's choice."""
        ...

    def demo(self) -> Path:
        """A short clip that ships with the adapter."""
        ...

    def unknown_words(self, question: str) -> Sequence[str]:
        """Words of a question that the model it loads for None was not taught to answer; empty where it takes any."""
        ...


def damage_of(prepared: PreparedQuestion) -> DamageLike | None:
    """What of the file was lost; None for a runner that does not say."""
    return getattr(prepared, "damage", None)
