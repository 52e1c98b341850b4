# SPDX-License-Identifier: Apache-2.0
"""What the installed transformers calls a KV cache, and what it can do: asked of it, never of its version number."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any

import torch
from hf.prompts import Clip, prompt, shared_model
from transformers import Qwen2_5_VLForConditionalGeneration

_ARGUMENTS = inspect.signature(Qwen2_5_VLForConditionalGeneration.forward).parameters
CACHE = "cache" if "cache" in _ARGUMENTS else "past_key_values"
TAKES_ENCODED = "mm_encoder_outputs" in _ARGUMENTS
"""Whether features that were encoded before can be given instead of pixels."""


def cache_of(output: Any) -> Any:
    """The cache that a forward or ``generate`` puts out."""
    return getattr(output, CACHE)


@lru_cache
def places_new_videos() -> bool:
    """Whether ``generate`` gives new visual tokens on a continued cache M-RoPE positions; others count them as text."""
    if not TAKES_ENCODED:
        return False
    model, first = shared_model(), prompt([[5, Clip(2, 2, 2), 4]])
    out = model.generate(**first.inputs(), do_sample=False, max_new_tokens=1, return_dict_in_generate=True)
    talk = first.answered(out.sequences[:, first.length :]).then([[2, Clip(2, 2, 2), 3]])
    new = talk.inputs(since=first.length)
    encoded = {"video": model.model.get_video_features(new["pixel_values_videos"], new["video_grid_thw"])}
    inputs = {**talk.inputs(), "mm_encoder_outputs": encoded, CACHE: cache_of(out)}
    del inputs["pixel_values_videos"]
    seen: list[torch.Tensor] = []

    def look(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        seen.append(kwargs["position_ids"][-3:])

    handle = model.model.language_model.register_forward_pre_hook(look, with_kwargs=True)
    try:
        model.generate(**inputs, do_sample=False, max_new_tokens=1)
    finally:
        handle.remove()
    return not bool((seen[0] == seen[0][:1]).all())
