# SPDX-License-Identifier: Apache-2.0
"""Working on a GPU without waiting for it, each wait of which leaves it idle; and on a device that lacks fp64."""

from __future__ import annotations

import torch
from torch import Tensor


def upload(host: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on ``device``; a copy from pageable memory would be waited for."""
    if device.type != "cuda" or host.device.type != "cpu":
        return host.to(device)
    return host.pin_memory().to(device, non_blocking=True)


WITHOUT_FP64 = frozenset({"mps"})
"""Types of devices that have no tensors of fp64."""


def where_fp64_is(tensor: Tensor) -> Tensor:
    """The tensor itself, or a copy on the CPU where its own device has no fp64: what needs it is computed there."""
    return tensor.cpu() if tensor.device.type in WITHOUT_FP64 else tensor


def places_where(mask: Tensor, count: int) -> Tensor:
    """Sorted int64 places of the ``count`` true entries of ``mask`` ``(N,)``; ``nonzero`` would have to count them."""
    return torch.argsort(mask.logical_not().to(torch.uint8), stable=True)[:count]
