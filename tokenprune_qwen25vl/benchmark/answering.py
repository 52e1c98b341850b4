# SPDX-License-Identifier: Apache-2.0
"""All questions about one clip, answered as one batch; the clip itself is looked at once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tokenprune import attach
from tokenprune.pipeline import Pipeline
from tokenprune_qwen25vl.benchmark.entries import Positions
from tokenprune_qwen25vl.benchmark.positions import renumbered
from tokenprune_qwen25vl.chat import Conversation, model_inputs
from tokenprune_qwen25vl.features import encode, encoded_before, few_pixels
from tokenprune_qwen25vl.parts import require_parts
from tokenprune_qwen25vl.video import VideoClip

if TYPE_CHECKING:
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

NEW_TOKENS = 4
"""An answer of the world is one token and the end; what is longer is wrong anyway."""


@dataclass(frozen=True, eq=False)
class SeenClip:
    """Questions about one clip, ready to be answered any number of times.

    Args:
        inputs: a left-padded batch, one question a row; of the pixels only what `visual` is called with for form.
        features: ``(N, D)`` what the vision tower made of the clip, one row for each visual token.
    """

    inputs: dict[str, Tensor]
    features: Tensor

    def unseen(self) -> SeenClip:
        """The same questions about nothing: every visual token is a zero."""
        return replace(self, features=torch.zeros_like(self.features))


@dataclass(frozen=True)
class Answers:
    """One entry per question; ``budgets`` and ``retained`` as in a session's report, 1.0 for the plain model."""

    texts: tuple[str, ...]
    budgets: tuple[float, ...]
    retained: tuple[float, ...]


@torch.inference_mode()
def see(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Qwen2_5_VLProcessor,
    clip: VideoClip,
    questions: Sequence[str],
) -> SeenClip:
    """Prepare a clip and its questions, and run the vision tower on the clip."""
    batch = model_inputs(processor, [Conversation(question, (clip,)) for question in questions])
    inputs = {name: value.to(model.device) for name, value in batch.items()}
    features = encode(model, inputs)
    inputs["pixel_values_videos"] = few_pixels(require_parts(model).prompt.visual, inputs["pixel_values_videos"])
    return SeenClip(inputs, features)


def answer(
    model: Qwen2_5_VLForConditionalGeneration,
    processor: Qwen2_5_VLProcessor,
    clip: SeenClip,
    pipeline: Pipeline | None = None,
    positions: Positions = "anchor",
) -> Answers:
    """Answer all questions about a clip greedily.

    Args:
        model: the model that has seen the clip.
        processor: its processor.
        clip: from :func:`see`.
        pipeline: attached for this one call; None runs the plain model.
        positions: ``"renumbered"`` for comparison only, and only with a pipeline.
    """
    parts = require_parts(model)
    rows = len(clip.inputs["input_ids"])
    with ExitStack() as stack:
        session = None if pipeline is None else stack.enter_context(attach(model, pipeline))
        if positions == "renumbered":
            stack.enter_context(renumbered(parts.text))
        stack.enter_context(encoded_before(parts.prompt.visual, clip.features.repeat(rows, 1)))
        runnable: Any = model  # the library types generate by what it can be bound to
        output = runnable.generate(
            **clip.inputs,
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            num_beams=1,
            # Sampling parameters that a checkpoint brings along would only be warned about.
            temperature=None,
            top_p=None,
            top_k=None,
        )
    new = output[:, clip.inputs["input_ids"].shape[1] :]
    texts = tuple(str(text) for text in processor.tokenizer.batch_decode(new, skip_special_tokens=True))
    report = None if session is None else session.report
    if report is None:
        return Answers(texts, (1.0,) * rows, (1.0,) * rows)
    return Answers(texts, tuple(report.layer_averaged_retained), tuple(report.visual_retained))
