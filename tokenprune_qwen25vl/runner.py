# SPDX-License-Identifier: Apache-2.0
"""One question answered, plain or pruned, and timed; and the runner that the command line asks."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from tokenprune.answers import Answer, ClipQuestion
from tokenprune.bench.runner import PreparedQuestion
from tokenprune.bench.world.words import unknown_words
from tokenprune.errors import InvalidValueError
from tokenprune.messages import shown
from tokenprune.pipeline import Pipeline
from tokenprune_qwen25vl.assets import demo_clip
from tokenprune_qwen25vl.chat import Conversation, model_inputs, reading_fit
from tokenprune_qwen25vl.features import encode, encoded_before, few_pixels
from tokenprune_qwen25vl.loading import load, why_not
from tokenprune_qwen25vl.parts import require_parts
from tokenprune_qwen25vl.pictures import pictures_of
from tokenprune_qwen25vl.video import Damage, load_clip

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor


def answer(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Qwen2_5_VLProcessor,
    inputs: Mapping[str, Tensor],
    pipeline: Pipeline | None = None,
    max_new_tokens: int = 64,
    features: Tensor | None = None,
) -> Answer:
    """Generate greedily from one prompt and time it.

    The device is waited for at the borders of the vision tower and at every token, so that the times are true.

    Args:
        model: a Qwen2.5-VL model.
        processor: its processor, for turning tokens into text.
        inputs: of one prompt, from :func:`tokenprune_qwen25vl.chat.model_inputs`; moved to the model's device.
        pipeline: attached for this one call; None runs the plain model.
        max_new_tokens: length of the answer, at most.
        features: ``(N, D)`` what the vision tower made of the clip before, and is not to make again; then of its
            pixels only :func:`tokenprune_qwen25vl.features.few_pixels` are needed.

    Raises:
        InvalidValueError: more than one prompt, or `max_new_tokens` below 1.
        TokenPruneError: what :func:`tokenprune.attach` refuses.
    """
    check_new_tokens(max_new_tokens)
    if len(inputs["input_ids"]) != 1:
        raise InvalidValueError(f"inputs must hold one prompt, got {len(inputs['input_ids'])}")
    from tokenprune import attach

    device = model.device
    moved: dict[str, Any] = {name: value.to(device) for name, value in inputs.items()}
    clock = _Clock(device)
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    tower = require_parts(model).prompt.visual
    seen = nullcontext() if features is None else encoded_before(tower, features)
    with nullcontext() if pipeline is None else attach(model, pipeline) as session, seen, clock.watching(tower):
        clock.start()
        runnable: Any = model  # the library types generate by what it can be bound to
        output = runnable.generate(
            **moved,
            streamer=clock,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            num_beams=1,
            # Sampling parameters that a checkpoint brings along would only be warned about.
            temperature=None,
            top_p=None,
            top_k=None,
        )
    new = output[0, moved["input_ids"].shape[1] :].tolist()
    return Answer(
        text=str(processor.tokenizer.decode(new, skip_special_tokens=True)).strip(),
        token_ids=tuple(new),
        report=None if session is None else session.report,
        vision_seconds=clock.vision,
        prefill_seconds=clock.first_token - clock.vision,
        decode_seconds=clock.last_token - clock.first_token,
        peak_memory_bytes=torch.cuda.max_memory_allocated(device) if on_gpu else None,
    )


def check_new_tokens(count: int) -> None:
    """Raise :class:`InvalidValueError` unless an answer may have so many tokens."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise InvalidValueError(f"max_new_tokens must be a whole number of at least 1, got {shown(count)}")


@dataclass(frozen=True, eq=False)
class Prepared:
    """Inputs of one question; with features, of a clip that was encoded before."""

    inputs: Mapping[str, Tensor]
    frames: int
    sampled_fps: float
    damage: Damage | None = None
    features: Tensor | None = None


@dataclass(frozen=True, eq=False)
class QwenModel:
    """A loaded Qwen2.5-VL and its processor."""

    module: Qwen2_5_VLForConditionalGeneration
    processor: Qwen2_5_VLProcessor

    def prepare(self, question: ClipQuestion) -> Prepared:
        """Decode, sample and resize the video, and put the question after it."""
        fit = reading_fit(self.processor, question.max_pixels)
        clip = load_clip(question.video, frames=question.frames, fps=question.fps, fit=fit, progress=question.progress)
        conversation = Conversation(question.question, (clip,), question.system)
        inputs = model_inputs(self.processor, [conversation], question.max_pixels)
        return Prepared(inputs, len(clip.frames), len(clip.frames) / clip.duration, damage=clip.damage)

    def pictures(self, prepared: PreparedQuestion) -> npt.NDArray[np.uint8]:
        """The frames in the size the model is shown them."""
        ours = _ours(prepared)
        if ours.features is not None:
            raise InvalidValueError("prepared must not be encoded yet: only the features of its frames are left")
        return pictures_of(self.processor.video_processor, ours.inputs)

    def encoded(self, prepared: PreparedQuestion) -> Prepared:
        """Run the vision tower, once for all answers."""
        ours = _ours(prepared)
        features = encode(self.module, ours.inputs)
        pixels = few_pixels(require_parts(self.module).prompt.visual, ours.inputs["pixel_values_videos"])
        return replace(ours, inputs={**ours.inputs, "pixel_values_videos": pixels}, features=features)

    def answer(self, prepared: PreparedQuestion, pipeline: Pipeline | None, max_new_tokens: int) -> Answer:
        """Answer greedily; see :func:`answer`."""
        ours = _ours(prepared)
        return answer(self.module, self.processor, ours.inputs, pipeline, max_new_tokens, ours.features)


def _ours(prepared: PreparedQuestion) -> Prepared:
    if not isinstance(prepared, Prepared):
        raise InvalidValueError(f"prepared must come from prepare(), got {type(prepared).__name__}")
    return prepared


@dataclass(frozen=True)
class QwenRunner:
    """The :class:`tokenprune.bench.runner.VideoRunner` of Qwen2.5-VL."""

    def declines(self, model: str) -> str | None:
        """Why this path or id is no Qwen2.5-VL."""
        return why_not(model)

    def load(self, model: str | None, device: str | None, dtype: str | None, attn: str | None) -> QwenModel:
        """Load a checkpoint; None is the shipped one."""
        return QwenModel(*load(model, device, dtype, attn))

    def demo(self) -> Path:
        """The clip in the package."""
        return demo_clip()

    def unknown_words(self, question: str) -> tuple[str, ...]:
        """Words that no question of the shipped model's world has."""
        return unknown_words(question)


@dataclass(eq=False)
class _Clock:
    """A streamer that notes when tokens arrive, and hooks that time the vision tower; all in seconds from the start."""

    device: torch.device
    vision: float = field(default=0.0, init=False)
    first_token: float = field(default=0.0, init=False)
    last_token: float = field(default=0.0, init=False)
    _origin: float = field(default=0.0, init=False)
    _entered: float = field(default=0.0, init=False)
    _puts: int = field(default=0, init=False)

    def start(self) -> None:
        self._origin = self._now()

    def put(self, value: Tensor) -> None:
        """Called by ``generate`` with the prompt, then with every new token."""
        self._puts += 1
        if self._puts > 1:
            self.last_token = self._now() - self._origin
        if self._puts == 2:
            self.first_token = self.last_token

    def end(self) -> None:
        """Called by ``generate`` after the last token, which `put` has seen."""

    @contextmanager
    def watching(self, tower: nn.Module) -> Generator[None, None, None]:
        """Time the forwards of ``tower``."""
        handles = (tower.register_forward_pre_hook(self._enter), tower.register_forward_hook(self._leave))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, module: nn.Module, args: Any) -> None:
        self._entered = self._now()

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self.vision += self._now() - self._entered

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
