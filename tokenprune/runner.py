# SPDX-License-Identifier: Apache-2.0
"""What the command line asks of an adapter: load a model by name, and answer questions about video files with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import nn

from tokenprune.errors import VideoError
from tokenprune.pipeline import Pipeline
from tokenprune.trace import SpanTrace


def video_place(video: str | Path, hint: str = "") -> Path:
    """Where a video lies on this machine; raises :class:`VideoError` for an address, or where nothing is.

    Args:
        video: its path.
        hint: added to the message where nothing is.
    """
    place = Path(video)
    if place.exists():
        return place
    if str(video).lower().startswith(("http:/", "https:/")):  # a Path has lost the second slash
        raise VideoError(f"videos are not fetched from the network: download it first and give its path, not {video}")
    raise VideoError(f"no such video file: {video}{hint}")


class ReportLike(Protocol):
    """What a session measured; see :attr:`Session.report`."""

    @property
    def spans(self) -> Sequence[Sequence[SpanTrace]]: ...

    def to_dict(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True)
class ClipQuestion:
    """A question about one video file.

    Args:
        video: path of the file.
        question: what is asked.
        system: system prompt; None is the model's own.
        frames: frames to sample, evenly spread.
        fps: or frames a second; where neither is given the adapter's own default.
        max_pixels: largest frame after resizing, in pixels; None is what the model's processor says.
        progress: called with (frames read, frames to read) while the video is read.
    """

    video: str
    question: str
    system: str | None = None
    frames: int | None = None
    fps: float | None = None
    max_pixels: int | None = None
    progress: Callable[[int, int], None] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, eq=False)
class Answer:
    """A greedy answer, and what it cost.

    Args:
        text: the answer without special tokens.
        token_ids: the generated tokens.
        report: what was pruned; None for the plain model.
        vision_seconds: time in the vision tower.
        prefill_seconds: from the start to the first new token, without the vision tower; pruning is part of it.
        decode_seconds: from the first new token to the last.
        peak_memory_bytes: most device memory held meanwhile; None where it is not known (CPU).
    """

    text: str
    token_ids: tuple[int, ...]
    report: ReportLike | None
    vision_seconds: float
    prefill_seconds: float
    decode_seconds: float
    peak_memory_bytes: int | None


class DamageLike(Protocol):
    """What of a video file could not be read; as a text one plain line."""

    def to_dict(self) -> Mapping[str, Any]: ...


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
