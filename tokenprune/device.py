# SPDX-License-Identifier: Apache-2.0
"""Working on a GPU without waiting for it: each wait leaves it idle until the host has caught up."""

from __future__ import annotations

import torch
from torch import Tensor


def upload(host: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on ``device``; a copy from pageable memory would be waited for."""
    if device.type != "cuda" or host.device.type != "cpu":
        return host.to(device)
    return host.pin_memory().to(device, non_blocking=True)


def places_where(mask: Tensor, count: int) -> Tensor:
    """Sorted int64 places of the ``count`` true entries of ``mask`` ``(N,)``; ``nonzero`` would have to count them."""
    return torch.argsort(mask.logical_not().to(torch.uint8), stable=True)[:count]
