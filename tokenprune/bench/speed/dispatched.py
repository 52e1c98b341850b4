# SPDX-License-Identifier: Apache-2.0
"""Counting what a function asks of torch: a stand-in for kernel launches that does not depend on the device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Result = TypeVar("Result")

NO_WORK = {"_unsafe_view", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
"""Neither views by their schema nor anything that a device computes."""

WAITS = {
    "_local_scalar_dense",  # .item(), int(), bool(), .tolist()
    "nonzero",
    "masked_select",
    "equal",
    "_unique2",
    "unique_dim",
    "unique_consecutive",
    "bincount",
}
"""Their results, or the shapes of these, have to reach the host."""


@dataclass(frozen=True)
class Dispatched:
    """ATen operations of one call on tensors of one device, views and bare allocations left out.

    An operation may be several kernels (a sort). Counted on a CPU, the operations on tensors that stay on the host
    wherever the others are cannot be told from these others, and copies between host and device do not exist.

    Args:
        operations: name -> how often.
        waits: those of them that make the host wait where the device is a GPU, as far as the operation tells: values
            or shapes that the host reads, copies between host and device.
    """

    operations: Mapping[str, int]
    waits: Mapping[str, int]

    @property
    def total(self) -> int:
        """All operations."""
        return sum(self.operations.values())

    @property
    def total_waits(self) -> int:
        """All waits."""
        return sum(self.waits.values())


def count_dispatched(call: Callable[[], Result], device: torch.device) -> tuple[Result, Dispatched]:
    """Call once, and count what concerns tensors on ``device``; returns what it returned, too."""
    with _Counting(device.type) as counting:
        result = call()
    return result, Dispatched(dict(counting.operations), dict(counting.waits))


# `torch.profiler` counts views and the parts of composite operations along with the rest, and sees a wait only on the
# GPU that it happens on. What is asked of torch, and what of it has to wait, is the same on every device.
class _Counting(TorchDispatchMode):
    def __init__(self, device_type: str) -> None:
        super().__init__()
        self._device_type = device_type
        self.operations: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = (leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor))
        if not any(tensor.device.type == self._device_type for tensor in tensors):
            return result
        name = func.overloadpacket.__name__
        waits = name in WAITS or _waits(name, args, kwargs or {}, result)
        if waits or not (_is_view(func) or name in NO_WORK):
            self.operations[name] += 1
        if waits:
            self.waits[name] += 1
        return result


def _is_view(func: Any) -> bool:
    """Whether the operation only gives back what shares an argument's memory, by its schema."""
    aliases = [value.alias_info for value in func._schema.returns]
    return bool(aliases) and all(alias is not None and not alias.is_write for alias in aliases)


def _waits(name: str, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> bool:
    """Whether this call waits where others of the same name do not."""
    if name in ("index", "index_put", "index_put_"):
        return any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    if name == "repeat_interleave":
        return kwargs.get("output_size") is None and (len(args) < 2 or args[-1] is None)
    if name == "lift_fresh":  # a tensor of Python values
        return result.is_cuda
    if name == "_to_copy":
        return args[0].is_cuda != result.is_cuda and not kwargs.get("non_blocking", False)
    if name == "copy_":
        blocking = not (kwargs.get("non_blocking", False) or (len(args) > 2 and args[2]))
        return args[0].is_cuda != args[1].is_cuda and blocking
    return False
