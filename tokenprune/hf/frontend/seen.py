# SPDX-License-Identifier: Apache-2.0
"""The frames as the model saw them, from what the processor made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange
from torch import Tensor

from tokenprune.errors import InvalidValueError


def pictures_of(processor: Any, inputs: Mapping[str, Tensor]) -> npt.NDArray[np.uint8]:
    """Frames of the first clip, ``(F, height, width, 3)`` RGB, in the size the model was shown.

    Args:
        processor: the checkpoint's video processor.
        inputs: what :func:`tokenprune.hf.frontend.chat.model_inputs` made with it.

    Raises:
        InvalidValueError: frames cannot be told from the inputs.
    """
    pixels = _of_patches(processor, inputs) if "video_grid_thw" in inputs else _of_frames(inputs)
    if processor.do_normalize:
        pixels = pixels * torch.tensor(processor.image_std) + torch.tensor(processor.image_mean)
    if processor.do_rescale:
        pixels = pixels / processor.rescale_factor
    return pixels.round().clamp(0, 255).to(torch.uint8).numpy()


def _of_patches(processor: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """``(F, height, width, 3)`` of the patches that Qwen's processors cut."""
    frames, rows, columns = inputs["video_grid_thw"][0].tolist()
    merge, patch = int(processor.merge_size), int(processor.patch_size)
    return rearrange(
        inputs["pixel_values_videos"][: frames * rows * columns].float().cpu(),
        "(t h w mh mw) (c k ph pw) -> (t k) (h mh ph) (w mw pw) c",
        t=frames, h=rows // merge, mh=merge, mw=merge, k=int(processor.temporal_patch_size), ph=patch, pw=patch,
    )  # fmt: skip


def _of_frames(inputs: Mapping[str, Tensor]) -> Tensor:
    """``(F, height, width, 3)`` of whole frames ``(..., F, 3, height, width)``; the first clip where there are more."""
    pixels = inputs.get("pixel_values_videos", inputs.get("pixel_values"))
    if pixels is None or pixels.ndim < 4 or pixels.shape[-3] != 3:
        raise InvalidValueError("the inputs hold no frames that could be shown")
    while pixels.ndim > 4:
        pixels = pixels[0]
    return rearrange(pixels.float().cpu(), "f c h w -> f h w c")
