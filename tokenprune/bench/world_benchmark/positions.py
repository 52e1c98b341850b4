# SPDX-License-Identifier: Apache-2.0
"""Positions counted anew after tokens were removed: only for comparison with keeping each anchor's own."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def renumbered(text: nn.Module) -> Generator[None, None, None]:
    """Inside a session: what its mergers leave of a prompt is numbered 0, 1, 2, ... along all axes of M-RoPE.

    That is what a model does by itself with a shorter prompt that comes without positions; decoding goes on from
    there. Tokens that a selector removes later leave gaps. To be entered after the session, so that it sees what the
    session hands to the decoder; one prefill at a time.

    Args:
        text: the decoder.
    """
    shift: Tensor | None = None

    def renumber(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        nonlocal shift
        positions: Tensor = kwargs["position_ids"][-3:]
        if positions.shape[-1] == 1:
            if shift is not None:
                positions = positions - shift
            return args, {**kwargs, "position_ids": positions}
        mask = kwargs.get("attention_mask")
        real = torch.ones_like(positions[0]) if mask is None else mask.long()
        counted = (real.cumsum(-1) - 1).clamp(min=0).expand_as(positions)
        shift = positions[:, :, -1:] - counted[:, :, -1:]
        return args, {**kwargs, "position_ids": counted}

    handle = text.register_forward_pre_hook(renumber, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
