# SPDX-License-Identifier: Apache-2.0
"""Finding ``torch.compile``: compiled code runs around the hooks, or repeats what they did once."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tokenprune.errors import UnsupportedModeError


def is_compiling() -> bool:
    """Whether ``torch.compile`` is tracing, or runs what it could not trace."""
    return torch.compiler.is_compiling() or _frame_callback()() is not None


def refuse_compiled(module: nn.Module) -> None:
    """Refuse a module whose call or forward is compiled, or that is being compiled."""
    if is_compiling() or _is_compiled(module):
        raise UnsupportedModeError(
            f"{type(module).__name__} is compiled with torch.compile; use the uncompiled model, with its own forward"
        )


def refuse_compiled_around(root: nn.Module, text: nn.Module) -> None:
    """Refuse a model in which anything that holds the decoder, or that the decoder holds, is compiled.

    A compiled vision tower does no harm: no hook is put inside.
    """
    inside = set(text.modules())
    for module in root.modules():
        if _is_compiled(module) and (module in inside or text in module.modules()):
            refuse_compiled(module)


def _is_compiled(module: nn.Module) -> bool:
    if getattr(module, "_compiled_call_impl", None) is not None:
        return True
    forward = module.forward
    if not hasattr(forward, "_torchdynamo_orig_callable"):
        return False
    # torch.compiler.disable leaves the same mark, and one of its own.
    return getattr(forward, "_is_torch_compile", False) or not getattr(forward, "_torchdynamo_disable", False)


@functools.cache
def _frame_callback() -> Callable[[], Any]:
    """Tells what dynamo does with Python frames now; private to torch, so a torch without it is no reason to fail."""
    try:
        from torch._C._dynamo.eval_frame import get_eval_frame_callback  # pyright: ignore
    except ImportError:
        return lambda: None
    return get_eval_frame_callback
