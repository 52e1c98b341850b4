# SPDX-License-Identifier: Apache-2.0
"""Counting, without a GPU, how often the host would have to wait for one.

Tensors that would be on the GPU are followed through every operation; reading one of them on the host is a wait.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

import tokenprune.device
from tokenprune import grid
from tokenprune.bench.speed.dispatched import WAITS
from tokenprune.operators import st_blocks, st_merge
from tokenprune.runtime import active, state


class Followed(TorchDispatchMode):
    """Tensors that would be on a GPU, and how often the host read one."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self._there: dict[int, weakref.ref[Tensor]] = {}

    def put(self, *tensors: Tensor) -> None:
        for tensor in tensors:
            self._there[id(tensor)] = weakref.ref(tensor)

    def has(self, tensor: Any) -> bool:
        known = self._there.get(id(tensor))
        return known is not None and known() is tensor

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(self.has(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)):
            name = func.overloadpacket.__name__
            if name in WAITS or (name.startswith("index") and _is_mask(args[1])):
                self.waits.append(name)
            self.put(*(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)))
        return result


class WithoutFp64(Followed):
    """The same on a device that has no fp64, as Apple's."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_dispatch__(func, types, args, kwargs)
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.dtype == torch.float64 and self.has(leaf):
                raise TypeError(f"{func} makes a tensor of fp64, which the device does not have")
        return result


def _is_mask(indices: Any) -> bool:
    return any(isinstance(index, Tensor) and index.dtype == torch.bool for index in tree_leaves(indices))


def following_with(monkeypatch: pytest.MonkeyPatch, device: Callable[[], Followed] = Followed) -> Callable[..., Any]:
    """``with following(*tensors) as waits``: the list of waits while these tensors would be on a device."""

    @contextmanager
    def following(*tensors: Tensor) -> Iterator[list[str]]:
        mode = device()
        mode.put(*tensors)

        def to_device(host: Tensor, device: torch.device) -> Tensor:
            assert not mode.has(host)
            moved = host.clone()
            mode.put(moved)
            return moved

        def reading(name: str) -> Callable[[Tensor], Any]:
            read = getattr(Tensor, name)

            def to_host(tensor: Tensor) -> Any:
                if not mode.has(tensor):
                    return read(tensor)
                mode.waits.append(name)
                with _disable_current_modes():
                    return read(tensor.clone())

            return to_host

        with monkeypatch.context() as patch:
            # Without fp64 stage 1 decides on the CPU: what it uploads goes nowhere.
            stage_1 = () if device is WithoutFp64 else (grid, st_blocks, st_merge)
            for module in (*stage_1, state, active):
                patch.setattr(module, "upload", to_device)
            for name in ("cpu", "tolist"):
                patch.setattr(Tensor, name, reading(name))
            if device is WithoutFp64:
                patch.setattr(tokenprune.device, "WITHOUT_FP64", {"cpu"})
            with mode:
                yield mode.waits

    return following
