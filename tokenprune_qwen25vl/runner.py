# SPDX-License-Identifier: Apache-2.0
"""One question answered, plain or pruned, and timed; and the runner that the command line asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from tokenprune.answers import Answer
from tokenprune.hf.frontend import answering
from tokenprune.hf.frontend.family import Family, Loaded
from tokenprune.hf.frontend.runner import FamilyRunner
from tokenprune.pipeline import Pipeline
from tokenprune_qwen25vl.family import QWEN25VL
from tokenprune_qwen25vl.parts import require_parts

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
    """Generate greedily from one prompt and time it; see :func:`tokenprune.hf.frontend.answering.answer`.

    >>> answer(model, processor, inputs, tp.preset("default")).text
    'left'

    Args:
        model: a Qwen2.5-VL model.
        processor: its processor, for turning tokens into text.
        inputs: of one prompt, from :func:`tokenprune_qwen25vl.chat.model_inputs`; moved to the model's device.
        pipeline: attached for this one call; None runs the plain model.
        max_new_tokens: length of the answer, at most.
        features: ``(N, D)`` what the vision tower made of the clip before, and is not to make again; then of its
            pixels only those of one visual token are needed.

    Raises:
        InvalidValueError: more than one prompt, or `max_new_tokens` below 1.
        TokenPruneError: what :func:`tokenprune.attach` refuses.
    """
    loaded = Loaded(model, processor, require_parts(model))
    return answering.answer(loaded, inputs, pipeline, max_new_tokens, features)


@dataclass(frozen=True)
class QwenRunner(FamilyRunner):
    """The :class:`tokenprune.bench.runner.VideoRunner` of Qwen2.5-VL."""

    family: Family = QWEN25VL
