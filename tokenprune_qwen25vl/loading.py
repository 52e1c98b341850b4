# SPDX-License-Identifier: Apache-2.0
"""A model and its processor, from a path or an id."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tokenprune.hf.frontend import loading
from tokenprune_qwen25vl.family import QWEN25VL

if TYPE_CHECKING:
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor


def load(
    model_path: str | Path | None = None,
    device: str | None = None,
    dtype: str | torch.dtype | None = None,
    attn_implementation: str | None = None,
) -> tuple[Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor]:
    """Load a Qwen2.5-VL checkpoint for inference; see :func:`tokenprune.hf.frontend.loading.load`.

    >>> model, processor = load(device="cpu")
    >>> model.config.model_type
    'qwen2_5_vl'

    Args:
        model_path: a directory, or an ``owner/name`` id that the Hugging Face library resolves; None is the small
            checkpoint that ships with the package.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...; None takes the GPU where there is one.
        dtype: a torch dtype or one of ``auto``, ``float32``, ``bfloat16``, ``float16``; None is ``auto``, what the
            checkpoint was saved in, except on the CPU: float32.
        attn_implementation: ``"sdpa"``, ``"eager"``, ``"flash_attention_2"``, ...; None leaves the library's choice.

    Raises:
        ModelLoadError: no such checkpoint, an incomplete one, or one that this machine cannot load.
        NoAdapterError: a checkpoint of another architecture.
        InvalidValueError: an unknown dtype or device.
    """
    loaded = loading.load(QWEN25VL, model_path, device, dtype, attn_implementation)
    return loaded.model, loaded.processor


def why_not(source: str) -> str | None:
    """None if ``source`` names a Qwen2.5-VL checkpoint, or what it is instead; only its configuration is read.

    Raises:
        ModelLoadError: ``source`` is no checkpoint at all.
    """
    return loading.why_not(QWEN25VL, source)
