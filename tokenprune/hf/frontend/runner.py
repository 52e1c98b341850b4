# SPDX-License-Identifier: Apache-2.0
"""What the commands ask of a family: a model by name, and answers about video files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from tokenprune.answers import Answer, ClipQuestion
from tokenprune.errors import InvalidValueError, VideoError
from tokenprune.hf.frontend.answering import answer
from tokenprune.hf.frontend.chat import Conversation, model_inputs, reading_fit
from tokenprune.hf.frontend.family import Family, Loaded
from tokenprune.hf.frontend.features import VideoFeatures, can_encode_once, encode_video, few_pixels
from tokenprune.hf.frontend.loading import load, why_not
from tokenprune.hf.frontend.seen import pictures_of
from tokenprune.hf.frontend.video import Damage, VideoClip, load_clip
from tokenprune.pipeline import Pipeline


@dataclass(frozen=True, eq=False)
class Prepared:
    """Inputs of one question; with features, of a clip that was encoded before.

    Args:
        inputs: what ``generate`` takes.
        frames: that were sampled.
        sampled_fps: frames a second.
        damage: what of the file was lost.
        features: what the vision tower made of the clip.
    """

    inputs: Mapping[str, Tensor]
    frames: int
    sampled_fps: float
    damage: Damage | None = None
    features: VideoFeatures | None = None


@dataclass(frozen=True, eq=False)
class FamilyModel:
    """A loaded model that is asked about video files."""

    loaded: Loaded

    @property
    def module(self) -> nn.Module:
        """The model itself."""
        return self.loaded.model

    def prepare(self, question: ClipQuestion) -> Prepared:
        """Decode, sample and resize the video, and put the question after it."""
        fit = reading_fit(self.loaded.processor, question.max_pixels)
        clip = load_clip(question.video, frames=question.frames, fps=question.fps, fit=fit, progress=question.progress)
        conversation = Conversation(question.question, (clip,), question.system)
        inputs = model_inputs(self.loaded.processor, [conversation], question.max_pixels)
        return Prepared(inputs, len(clip.frames), len(clip.frames) / clip.duration, damage=clip.damage)

    def pictures(self, prepared: object) -> npt.NDArray[np.uint8]:
        """The frames in the size the model is shown them."""
        ours = _ours(prepared)
        if ours.features is not None:
            raise InvalidValueError("prepared must not be encoded yet: only the features of its frames are left")
        return pictures_of(self.loaded.processor.video_processor, ours.inputs)

    def encoded(self, prepared: object) -> Prepared:
        """Run the vision tower, once for all answers; a tower that cannot be told to skip its work runs each time."""
        ours = _ours(prepared)
        if not can_encode_once(self.loaded.parts, ours.inputs):
            return ours
        features = encode_video(self.loaded.parts, ours.inputs)
        pixels = few_pixels(self.loaded.parts.tower, ours.inputs["pixel_values_videos"])
        return replace(ours, inputs={**ours.inputs, "pixel_values_videos": pixels}, features=features)

    def answer(self, prepared: object, pipeline: Pipeline | None, max_new_tokens: int) -> Answer:
        """Answer greedily; see :func:`answer`. A backend that cannot carry attention mass gives way to sdpa."""
        ours = _ours(prepared)
        return answer(self.loaded, ours.inputs, pipeline, max_new_tokens, ours.features, fallback="sdpa")

    def windows(self, question: ClipQuestion, questions: Sequence[str], count: int) -> list[list[Prepared]]:
        """Read the video once, and encode each of its parts once."""
        fit = reading_fit(self.loaded.processor, question.max_pixels)
        frames = None if question.frames is None else question.frames * count
        whole = load_clip(question.video, frames=frames, fps=question.fps, fit=fit, progress=question.progress)
        length = len(whole.frames) // count
        if length < 1:
            raise VideoError(f"{question.video} has {len(whole.frames)} frames, too few for {count} parts")
        rate = len(whole.frames) / whole.duration
        parts = [whole.frames[place * length : (place + 1) * length] for place in range(count)]
        return [self._asked(VideoClip.from_frames(part, rate), question, questions) for part in parts]

    def _asked(self, clip: VideoClip, question: ClipQuestion, questions: Sequence[str]) -> list[Prepared]:
        found: list[Prepared] = []
        for text in questions:
            conversation = Conversation(text, (clip,), question.system)
            inputs = model_inputs(self.loaded.processor, [conversation], question.max_pixels)
            ready = Prepared(inputs, len(clip.frames), clip.fps)
            if not found or found[0].features is None:
                found.append(self.encoded(ready))
            else:
                inputs["pixel_values_videos"] = found[0].inputs["pixel_values_videos"]
                found.append(replace(ready, features=found[0].features))
        return found

    def watched(self, prepared: object, pipeline: Pipeline | None, max_new_tokens: int) -> tuple[Answer, Tensor]:
        """As :meth:`answer`, and the first new token's log probabilities."""
        ours = _ours(prepared)
        seen: list[Tensor] = []
        given = answer(
            self.loaded, ours.inputs, pipeline, max_new_tokens, ours.features, fallback="sdpa", first=seen.append
        )
        return given, seen[0].double().cpu().log_softmax(dim=-1)


def _ours(prepared: object) -> Prepared:
    if not isinstance(prepared, Prepared):
        raise InvalidValueError(f"prepared must come from prepare(), got {type(prepared).__name__}")
    return prepared


@dataclass(frozen=True)
class FamilyRunner:
    """The :class:`tokenprune.bench.runner.VideoRunner` of a family.

    >>> from tokenprune_qwen25vl.family import QWEN25VL
    >>> FamilyRunner(QWEN25VL).demo().name
    'demo.mp4'
    """

    family: Family

    def declines(self, model: str) -> str | None:
        """Why this path or id is none of the family."""
        return why_not(self.family, model)

    def load(self, model: str | None, device: str | None, dtype: str | None, attn: str | None) -> FamilyModel:
        """Load a checkpoint; None is the shipped one."""
        return FamilyModel(load(self.family, model, device, dtype, attn))

    def demo(self) -> Path:
        """The clip in the package."""
        return self.family.demo()

    def unknown_words(self, question: str) -> tuple[str, ...]:
        """Words that no question that the shipped model was taught has."""
        return self.family.unknown_words(question)
