# SPDX-License-Identifier: Apache-2.0
"""One question answered, plain or pruned, and timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from tokenprune.answers import Answer
from tokenprune.errors import InvalidValueError
from tokenprune.hf.frontend.clock import Clock
from tokenprune.hf.frontend.family import Loaded
from tokenprune.hf.frontend.features import VideoFeatures, encoded_before
from tokenprune.hf.frontend.next_token import GREEDY
from tokenprune.messages import shown
from tokenprune.pipeline import Pipeline


def answer(
    loaded: Loaded,
    inputs: Mapping[str, Tensor],
    pipeline: Pipeline | None = None,
    max_new_tokens: int = 64,
    features: Tensor | VideoFeatures | None = None,
    fallback: str | None = None,
    first: Callable[[Tensor], None] | None = None,
) -> Answer:
    """Generate greedily from one prompt and time it.

    The device is waited for at the borders of the vision tower and at every token, so that the times are true.

    >>> from tokenprune_qwen25vl.family import QWEN25VL
    >>> answer(Loaded(model, processor, QWEN25VL.parts(model)), inputs, max_new_tokens=2).text
    'left'

    Args:
        loaded: the model, and its processor for turning tokens into text.
        inputs: of one prompt, from :func:`tokenprune.hf.frontend.chat.model_inputs`; moved to the model's device.
        pipeline: attached for this one call; None runs the plain model.
        max_new_tokens: length of the answer, at most.
        features: what the vision tower made of the clip before, and is not to make again; then of its
            pixels only :func:`tokenprune.hf.frontend.features.few_pixels` are needed.
        fallback: as :func:`tokenprune.attach` takes it.
        first: called with the scores ``(V,)`` from which the first new token is chosen.

    Raises:
        InvalidValueError: more than one prompt, or `max_new_tokens` below 1.
        TokenPruneError: what :func:`tokenprune.attach` refuses.
    """
    check_new_tokens(max_new_tokens)
    if len(inputs["input_ids"]) != 1:
        raise InvalidValueError(f"inputs must hold one prompt, got {len(inputs['input_ids'])}")
    from tokenprune import attach

    model, tower = loaded.model, loaded.parts.tower
    device = model.device
    moved: dict[str, Any] = {name: value.to(device) for name, value in inputs.items()}
    clock = Clock(device)
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    pruning = nullcontext() if pipeline is None else attach(model, pipeline, fallback=fallback)
    seen = nullcontext() if features is None else encoded_before(tower, features)
    with pruning as session, seen, clock.watching(tower):
        clock.start()
        output = model.generate(
            **moved,
            streamer=clock,
            logits_processor=LogitsProcessorList([] if first is None else [_First(first)]),
            max_new_tokens=max_new_tokens,
            **GREEDY.options(),
        )
    new = output[0, moved["input_ids"].shape[1] :].tolist()
    return Answer(
        text=str(loaded.processor.tokenizer.decode(new, skip_special_tokens=True)).strip(),
        token_ids=tuple(new),
        report=None if session is None else session.report,
        vision_seconds=clock.vision,
        prefill_seconds=clock.first_token - clock.vision,
        decode_seconds=clock.last_token - clock.first_token,
        peak_memory_bytes=torch.cuda.max_memory_allocated(device) if on_gpu else None,
    )


class _First(LogitsProcessor):
    """Shows the scores of the first new token, and changes none."""

    def __init__(self, show: Callable[[Tensor], None]) -> None:
        self._show: Callable[[Tensor], None] | None = show

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        if self._show is not None:
            self._show(scores[0])
            self._show = None
        return scores


def check_new_tokens(count: int) -> None:
    """Raise :class:`InvalidValueError` unless an answer may have so many tokens."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise InvalidValueError(f"max_new_tokens must be a whole number of at least 1, got {shown(count)}")
