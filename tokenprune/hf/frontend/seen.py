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


def pictures_of(processor: Any, inputs: Mapping[str, Tensor]) -> npt.NDArray[np.uint8]:
    """Frames of the first clip, ``(F, height, width, 3)`` RGB, in the size the model was shown.

    Args:
        processor: the checkpoint's video processor.
        inputs: what :func:`tokenprune.hf.frontend.chat.model_inputs` made with it.
    """
    frames, rows, columns = inputs["video_grid_thw"][0].tolist()
    merge, patch = int(processor.merge_size), int(processor.patch_size)
    pixels = rearrange(
        inputs["pixel_values_videos"][: frames * rows * columns].float().cpu(),
        "(t h w mh mw) (c k ph pw) -> (t k) (h mh ph) (w mw pw) c",
        t=frames, h=rows // merge, mh=merge, mw=merge, k=int(processor.temporal_patch_size), ph=patch, pw=patch,
    )  # fmt: skip
    if processor.do_normalize:
        pixels = pixels * torch.tensor(processor.image_std) + torch.tensor(processor.image_mean)
    if processor.do_rescale:
        pixels = pixels / processor.rescale_factor
    return pixels.round().clamp(0, 255).to(torch.uint8).numpy()
