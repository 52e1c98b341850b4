# SPDX-License-Identifier: Apache-2.0
"""Questions about clips, answered as one batch; each clip itself is looked at once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from tokenprune import attach
from tokenprune.bench.world_benchmark.entries import Positions
from tokenprune.bench.world_benchmark.positions import renumbered
from tokenprune.hf.frontend.chat import Conversation, model_inputs
from tokenprune.hf.frontend.family import Loaded
from tokenprune.hf.frontend.features import encode, encoded_before, few_pixels
from tokenprune.hf.frontend.next_token import GREEDY
from tokenprune.hf.frontend.video import VideoClip
from tokenprune.pipeline import Pipeline

NEW_TOKENS = 4
"""An answer of the world is one token and the end; what is longer did not end in time."""


@dataclass(frozen=True, eq=False)
class Seen:
    """Questions about clips, ready to be answered any number of times.

    Args:
        inputs: a left-padded batch, one question a row; of the pixels only what `visual` is called with for form.
        features: of each row ``(N, D)``: what the vision tower made of its clip, one line for each visual token.
    """

    inputs: dict[str, Tensor]
    features: tuple[Tensor, ...]

    def unseen(self) -> Seen:
        """The same questions about nothing: every visual token is a zero."""
        return replace(self, features=tuple(torch.zeros_like(each) for each in self.features))


@dataclass(frozen=True)
class Answers:
    """One entry per question.

    Args:
        begun: the text of the first new token, of the first two, and so on to the whole answer.
        budgets: as in a session's report, 1.0 for the plain model.
        retained: likewise.
    """

    begun: tuple[tuple[str, ...], ...]
    budgets: tuple[float, ...]
    retained: tuple[float, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """The whole answers."""
        return tuple(beginnings[-1] for beginnings in self.begun)


@torch.inference_mode()
def see(
    loaded: Loaded,
    clip: VideoClip,
    questions: Sequence[str],
) -> Seen:
    """Prepare a clip and its questions, and run the vision tower on the clip."""
    batch = model_inputs(loaded.processor, [Conversation(question, (clip,)) for question in questions])
    inputs = {name: value.to(loaded.model.device) for name, value in batch.items()}
    features = encode(loaded.parts, inputs)
    inputs["pixel_values_videos"] = few_pixels(loaded.parts.tower, inputs["pixel_values_videos"])
    return Seen(inputs, (features,) * len(questions))


def together(loaded: Loaded, seen: Sequence[Seen]) -> Seen:
    """The questions about several clips as one batch."""
    first, pad = seen[0].inputs, loaded.processor.tokenizer.pad_token_id
    longest = max(each.inputs["input_ids"].shape[1] for each in seen)
    inputs = {"pixel_values_videos": first["pixel_values_videos"]}
    for name in first.keys() - inputs.keys():
        values = [each.inputs[name] for each in seen]
        if values[0].shape == first["input_ids"].shape:  # along the prompt
            filler = pad if name == "input_ids" else 0
            values = [F.pad(value, (longest - value.shape[1], 0), value=filler) for value in values]
        inputs[name] = torch.cat(values)
    return Seen(inputs, tuple(features for each in seen for features in each.features))


def answer(
    loaded: Loaded,
    seen: Seen,
    pipeline: Pipeline | None = None,
    positions: Positions = "anchor",
) -> Answers:
    """Answer all questions greedily.

    Args:
        loaded: the model that has seen the clips.
        seen: from :func:`see` or :func:`together`.
        pipeline: attached for this one call; None runs the plain model.
        positions: ``"renumbered"`` for comparison only, and only with a pipeline.
    """
    parts = loaded.parts
    rows = len(seen.inputs["input_ids"])
    with ExitStack() as stack:
        session = None if pipeline is None else stack.enter_context(attach(loaded.model, pipeline))
        if positions == "renumbered":
            stack.enter_context(renumbered(parts.text))
        stack.enter_context(encoded_before(parts.tower, torch.cat(seen.features)))
        output = loaded.model.generate(
            **seen.inputs,
            max_new_tokens=NEW_TOKENS,
            **GREEDY.options(),
        )
    begun = tuple(beginnings(loaded, output[:, seen.inputs["input_ids"].shape[1] :]))
    report = None if session is None else session.report
    if report is None:
        return Answers(begun, (1.0,) * rows, (1.0,) * rows)
    return Answers(begun, tuple(report.layer_averaged_retained), tuple(report.visual_retained))


def beginnings(loaded: Loaded, new: Tensor) -> list[tuple[str, ...]]:
    """Of each row of new tokens ``(B, n)`` the text of the first, of the first two, and so on to all."""
    decode = loaded.processor.tokenizer.batch_decode
    lengths = range(1, new.shape[1] + 1)
    return list(zip(*(map(str, decode(new[:, :length], skip_special_tokens=True)) for length in lengths)))
