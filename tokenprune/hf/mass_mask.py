# SPDX-License-Identifier: Apache-2.0
"""The mask by which attention adds a number to each key: whole where it is small, else made in pieces of queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tokenprune.errors import UnsupportedModeError

MASK_BYTES = 64 * 2**20
"""Most bytes of a mask that are alive at a time (law 9)."""

_ADDITIONS = (torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__)


def with_bias(bias: Tensor, mask: Tensor | None, queries: int) -> Tensor:
    """What attention is to be given as its mask.

    Args:
        bias: ``(B, 1, 1, L)`` what is added to the logits of each key.
        mask: what attention was given: ``(B, 1, Q, L)`` bool or numbers; None: the last Q of L tokens, causally.
        queries: Q.

    Returns:
        ``(B, 1, Q, L)`` in the bias's dtype (``(B, 1, 1, L)`` for one query without a mask), or, where that takes more
        than :data:`MASK_BYTES`, a :class:`MaskInPieces`.
    """
    if mask is None and queries == 1:  # a single query sees everything there is
        return bias
    pieces = MaskInPieces.of(bias, mask, queries)
    return pieces if pieces.nbytes > MASK_BYTES and queries > 1 else pieces.part(slice(0, queries), bias.shape[-1])


class MaskInPieces(Tensor):
    """A mask that is never made whole: sdpa and eager attention, given it, take their queries in pieces.

    Each query's softmax runs over the same keys in one go, so what comes out is what the whole mask would give. Only
    what those two do with a mask is known; anything else is refused, and what passes this class by reads NaN.
    """

    bias: Tensor
    mask: Tensor | None

    @classmethod
    def of(cls, bias: Tensor, mask: Tensor | None, queries: int) -> MaskInPieces:
        """As :func:`with_bias`, whatever its size."""
        heads = 1 if mask is None or mask.ndim < 4 else mask.shape[1]
        unseen = bias.new_full((), torch.nan).expand(len(bias), heads, queries, bias.shape[-1])
        made = unseen.as_subclass(cls)
        made.bias, made.mask = bias, mask
        return made

    @property
    def nbytes(self) -> int:  # type: ignore[override]
        """What it would take if it were made."""
        return self.numel() * self.element_size()

    def pieces(self) -> Iterator[tuple[slice, int]]:
        """Which queries go together, and how many of the keys the last of them may see at most."""
        queries, keys = self.shape[-2:]
        step = max(1, MASK_BYTES * queries // self.nbytes)
        for start in range(0, queries, step):
            stop = min(start + step, queries)
            yield slice(start, stop), keys if self.mask is not None else keys - queries + stop

    def part(self, queries: slice, keys: int) -> Tensor:
        """``(B, 1, q, keys)`` of the first keys: the bias where the mask lets through, the lowest number elsewhere."""
        bias = self.bias[..., :keys]
        lowest = torch.finfo(bias.dtype).min  # not -inf: a padding row without any key would become NaN
        if self.mask is None:
            first = self.shape[-1] - self.shape[-2] + queries.start  # the key of the first of these queries
            rows = torch.arange(first, first + queries.stop - queries.start, device=bias.device)
            seen = torch.arange(keys, device=bias.device) <= rows[:, None]
            return torch.where(seen, bias, lowest)
        mask = self.mask[..., queries, :keys]
        return torch.where(mask, bias, lowest) if mask.dtype == torch.bool else (bias + mask).clamp(min=lowest)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = dict(kwargs or {})
        if func is torch.nn.functional.scaled_dot_product_attention:
            return _attended(*args, **named)
        if func in _ADDITIONS and not named and len(args) == 2:
            logits, mask = args if isinstance(args[1], cls) else args[::-1]
            return _added(logits, mask)
        if func in (Tensor.numel, Tensor.element_size) or getattr(func, "__name__", "") == "__get__":
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **named)
        name = getattr(func, "__name__", str(func))
        raise UnsupportedModeError(
            f"this model's attention does something with its mask ({name}) that cannot be done in pieces; keep fewer "
            "tokens, ask fewer rows at once, or use a pipeline with mass=None"
        )


def _attended(query: Tensor, key: Tensor, value: Tensor, attn_mask: MaskInPieces, **more: Any) -> Tensor:
    """``scaled_dot_product_attention``, a piece of the queries at a time."""
    parts = [
        torch.nn.functional.scaled_dot_product_attention(
            query[:, :, queries],
            key[:, :, :keys],
            value[:, :, :keys],
            attn_mask=attn_mask.part(queries, keys),
            **more,
        )
        for queries, keys in attn_mask.pieces()
    ]
    return torch.cat(parts, dim=2)


def _added(logits: Tensor, mask: MaskInPieces) -> Tensor:
    """``logits + mask`` of ``(B, heads, Q, L)`` logits, a piece of the queries at a time."""
    total = torch.empty_like(logits)
    for queries, _ in mask.pieces():
        total[:, :, queries] = logits[:, :, queries] + mask.part(queries, mask.shape[-1])
    return total
