# SPDX-License-Identifier: Apache-2.0
"""All questions about one clip, answered as one batch; the clip itself is looked at once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tokenprune import attach
from tokenprune.bench.world_benchmark.entries import Positions
from tokenprune.bench.world_benchmark.positions import renumbered
from tokenprune.hf.frontend.chat import Conversation, model_inputs
from tokenprune.hf.frontend.family import Loaded
from tokenprune.hf.frontend.features import encode, encoded_before, few_pixels
from tokenprune.hf.frontend.video import VideoClip
from tokenprune.pipeline import Pipeline

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
    loaded: Loaded,
    clip: VideoClip,
    questions: Sequence[str],
) -> SeenClip:
    """Prepare a clip and its questions, and run the vision tower on the clip."""
    batch = model_inputs(loaded.processor, [Conversation(question, (clip,)) for question in questions])
    inputs = {name: value.to(loaded.model.device) for name, value in batch.items()}
    features = encode(loaded.parts, inputs)
    inputs["pixel_values_videos"] = few_pixels(loaded.parts.tower, inputs["pixel_values_videos"])
    return SeenClip(inputs, features)


def answer(
    loaded: Loaded,
    clip: SeenClip,
    pipeline: Pipeline | None = None,
    positions: Positions = "anchor",
) -> Answers:
    """Answer all questions about a clip greedily.

    Args:
        loaded: the model that has seen the clip.
        clip: from :func:`see`.
        pipeline: attached for this one call; None runs the plain model.
        positions: ``"renumbered"`` for comparison only, and only with a pipeline.
    """
    parts = loaded.parts
    rows = len(clip.inputs["input_ids"])
    with ExitStack() as stack:
        session = None if pipeline is None else stack.enter_context(attach(loaded.model, pipeline))
        if positions == "renumbered":
            stack.enter_context(renumbered(parts.text))
        stack.enter_context(encoded_before(parts.tower, clip.features.repeat(rows, 1)))
        output = loaded.model.generate(
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
    texts = tuple(str(text) for text in loaded.processor.tokenizer.batch_decode(new, skip_special_tokens=True))
    report = None if session is None else session.report
    if report is None:
        return Answers(texts, (1.0,) * rows, (1.0,) * rows)
    return Answers(texts, tuple(report.layer_averaged_retained), tuple(report.visual_retained))
