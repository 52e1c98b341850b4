# SPDX-License-Identifier: Apache-2.0
"""One layer of a KV cache that can be cut, with the logical and the stored length kept apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from tokenprune.errors import UnsupportedCacheError


@dataclass(eq=False)
class Gate:
    """Shared by the layers of one cache: open while a session hands the decoder the stored tokens' mask."""

    is_open: bool = False

    def __deepcopy__(self, memo: dict[int, Any]) -> Gate:
        """A copied cache has a gate of its own, closed: no session hands out its mask."""
        return Gate()


class PrunableLayer(DynamicLayer):
    """One layer's keys and values after some tokens were removed.

    ``get_seq_length`` is the *logical* length (stored + removed), so positions go on as if nothing had been removed;
    ``get_mask_sizes`` says that the stored keys start at offset ``removed``, which keeps the causal rule right.

    >>> layer = PrunableLayer()
    >>> keys, values = layer.update(torch.randn(1, 2, 5, 4), torch.randn(1, 2, 5, 4))
    >>> layer.cut(torch.tensor([[0, 4]]), None)
    >>> layer.stored, layer.removed, layer.get_seq_length()
    (2, 3, 5)

    Attributes:
        removed: how many logical tokens are no longer stored.
        columns: ``(B, C)`` int64, the logical column of each of the first C slots; None while slot j is column j.
            Slots appended later are the last logical columns.
        valid: ``(B, C)`` bool, False for padding slots of rows that keep fewer tokens; None where no row is padded.
        mass: ``(B, C)`` fp32, how many tokens each of the first C slots stands for in attention; None: one each.
        held: ``(B, kv_heads or 1, C)`` int64, the logical column that each head stores in each of the first C slots,
            after a press, which lets layers and heads keep different tokens; None: as ``columns`` says.
        whole_from: logical column from which on every layer and head stores all tokens; 0 without a press.
    """

    def __init__(self) -> None:
        super().__init__()
        self._forget()

    def _forget(self) -> None:
        self.removed: int = 0
        self.columns: Tensor | None = None
        self.valid: Tensor | None = None
        self.mass: Tensor | None = None
        self.held: Tensor | None = None
        self.whole_from: int = 0
        self.gate: Gate | None = None

    @property
    def stored(self) -> int:
        """Slots stored, padding included."""
        return super().get_seq_length()

    def get_seq_length(self) -> int:
        return self.stored + self.removed

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        self._require_session()
        # The mask is made over what is stored, and starts at what was removed: moved to the end of the sequence, every
        # stored key lies before every new query, which is all that the causal rule asks.
        return self.stored + query_length, self.removed

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        self._require_session()
        return super().update(key_states, value_states, *args, **kwargs)

    def reset(self) -> None:
        self.keys = self.values = None
        self.is_initialized = False
        self._forget()

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)  # pyright: ignore[reportArgumentType] - the library says LongTensor
        self._move_rows(lambda rows: rows.index_select(0, beam_idx.to(rows.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self._move_rows(lambda rows: rows.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self._move_rows(lambda rows: rows[indices.to(rows.device)])

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the last tokens: a negative count, or (older releases) the positive logical length to keep.

        Raises:
            UnsupportedCacheError: the crop reaches tokens that pruning has removed.
        """
        count = -tokens_to_remove if tokens_to_remove <= 0 else max(0, self.get_seq_length() - tokens_to_remove)
        if count == 0 or not self.is_initialized:
            return
        # A count is of logical tokens. Only where the last slots are the last columns is it one of slots, too.
        tail = self._tail()
        if tail is not None and count > tail:
            raise UnsupportedCacheError(
                f"cannot crop {count} tokens: only the last {tail} of this cache are stored without gaps"
            )
        keys, values = _filled(self)
        self.keys, self.values = keys[..., :-count, :], values[..., :-count, :]
        if self.columns is not None and self.columns.shape[1] > self.stored:
            self.columns = self.columns[:, : self.stored]
            self.valid = None if self.valid is None else self.valid[:, : self.stored]
        if self.mass is not None:
            self.mass = self.mass[:, : self.stored]
        if self.held is not None:
            self.held = self.held[..., : self.stored]

    def cut(self, index: Tensor, mask: Tensor | None) -> None:
        """Keep the slots at ``index`` ``(B, K)``; ``mask`` ``(B, K)`` is False at padding, None: no row is padded."""
        slots = index.to(_filled(self)[0].device)
        self._check(slots)
        columns, valid = self.slot_columns(), self.slot_valid()
        columns = columns.gather(1, slots.to(columns.device))
        if valid is not None:
            valid = valid.gather(1, slots.to(valid.device))
        if mask is not None:
            valid = mask.to(columns.device) if valid is None else valid & mask.to(valid.device)
        mass = self.slot_mass()
        mass = None if mass is None else mass.gather(1, slots.to(mass.device))
        self.take(slots, columns, valid)
        self.mass = mass

    def take(self, index: Tensor, columns: Tensor, valid: Tensor | None) -> None:
        """Keep the slots at ``index`` ``(B, K)``, which hold the logical ``columns`` ``(B, K)``; the mass is as before.

        Args:
            index: slots stored now; ``(B, heads, K)`` where each key-value head keeps its own.
            columns: the logical column of each (with an index a head: of the first head).
            valid: ``(B, K)`` bool, False at padding; None: no row is padded.
        """
        keys, values = _filled(self)
        slots = index.to(keys.device)
        self._check(slots)
        # Copies, not views: a view would keep the removed tokens in memory. What is stored keeps its rotary angles, for
        # they were put into the keys before; the next position counts the removed, too.
        self.keys, self.values = _gathered(keys, slots), _gathered(values, slots)
        self.removed += keys.shape[2] - slots.shape[-1]
        self.columns, self.valid = columns, valid
        self.held = None if self.held is None else _followed(self.held, index, columns)

    def press(self, index: Tensor, columns: Tensor, valid: Tensor | None, whole_from: int) -> None:
        """Likewise, where other layers, or the heads of this one, keep other tokens.

        Args:
            index: as :meth:`take` has it.
            columns: likewise.
            valid: likewise.
            whole_from: logical column from which on every layer and head stores all tokens.
        """
        held = _picked(self.slot_columns_by_head(), index)
        self.held = None
        self.take(index, columns, valid)
        self.held, self.whole_from = held, whole_from

    def place(self, columns: Tensor, valid: Tensor | None, mass: Tensor | None, logical: int) -> None:
        """Declare which logical columns the stored slots hold, after a prefill that never stored the others."""
        self.columns, self.valid, self.mass = columns, valid, mass
        # A layer after a cut was never given the others, so nothing was taken from it that could have been counted.
        self.removed = logical - self.stored
        if self.held is not None:
            new = columns[:, None, self.held.shape[2] :]
            self.held = torch.cat([self.held, new.expand(-1, self.held.shape[1], -1)], dim=2)

    def slot_columns(self) -> Tensor:
        """``(B, stored)`` logical column of every slot."""
        keys, _ = _filled(self)
        placed = 0 if self.columns is None else self.columns.shape[1]
        # Slots appended since follow without a gap: the sequence has grown by as many columns as slots.
        rest = torch.arange(placed, self.stored, device=keys.device) + self.removed
        rest = rest.expand(keys.shape[0], -1)
        return rest if self.columns is None else torch.cat([self.columns, rest.to(self.columns.device)], dim=1)

    def slot_columns_by_head(self) -> Tensor:
        """``(B, kv_heads or 1, stored)`` logical column of every slot of each head; 1: all heads store the same."""
        columns = self.slot_columns()[:, None]
        if self.held is None:
            return columns
        new = columns[..., self.held.shape[2] :].expand(-1, self.held.shape[1], -1)
        return torch.cat([self.held, new], dim=2)

    def slot_valid(self) -> Tensor | None:
        """``(B, stored)`` bool, False at padding slots; None where no row is padded."""
        if self.valid is None:
            return None
        return torch.nn.functional.pad(self.valid, (0, self.stored - self.valid.shape[1]), value=True)

    def slot_mass(self) -> Tensor | None:
        """``(B, stored)`` fp32 mass of every slot, one for those appended later; None where all have one."""
        if self.mass is None:
            return None
        return torch.nn.functional.pad(self.mass, (0, self.stored - self.mass.shape[1]), value=1.0)

    def _tail(self) -> int | None:
        """How many of the last logical columns every row stores, each in its place from the end; None: all of them.

        Waits for the device.
        """
        if self.columns is None:
            return None
        placed = self.columns.shape[1]
        ends = self.removed + placed
        broken = self.columns != torch.arange(ends - placed, ends, device=self.columns.device)
        if self.valid is not None:
            broken = broken | ~self.valid
        places = broken.any(dim=0).nonzero()
        tail = self.stored - 1 - int(places[-1]) if len(places) else self.stored
        return tail if self.held is None else min(tail, self.get_seq_length() - self.whole_from)

    def _check(self, slots: Tensor) -> None:
        rows = _filled(self)[0].shape[0]
        fits = slots.ndim in (2, 3) and slots.shape[0] == rows and slots.shape[-1] <= self.stored
        if not fits or (slots.ndim == 3 and slots.shape[1] != _filled(self)[0].shape[1]):
            raise UnsupportedCacheError(
                f"index must be (B, K) or (B, heads, K) with B={rows} and K <= {self.stored}, got {tuple(slots.shape)}"
            )

    def _move_rows(self, move: Any) -> None:
        self.columns = None if self.columns is None else move(self.columns)
        self.valid = None if self.valid is None else move(self.valid)
        self.mass = None if self.mass is None else move(self.mass)
        self.held = None if self.held is None else move(self.held)

    def _require_session(self) -> None:
        if self.gate is not None and self.gate.is_open:
            return
        if self.valid is not None or self.mass is not None:
            why = "rows of this pruned cache hold different numbers of tokens"
            why = why if self.mass is None else "tokens of this pruned cache stand for several in attention"
            raise UnsupportedCacheError(
                f"the {why}, so it can only be used with a session: with tokenprune.attach(model, pipeline): ..."
            )


def _filled(layer: DynamicLayer) -> tuple[Tensor, Tensor]:
    if layer.keys is None or layer.values is None:
        raise UnsupportedCacheError("this cache layer holds nothing yet, so it cannot be cut")
    return layer.keys, layer.values


def _gathered(stored: Tensor, slots: Tensor) -> Tensor:
    """The entries of ``stored`` ``(B, heads, S, D)`` at ``slots`` ``(B, K)`` or ``(B, heads, K)``."""
    if slots.ndim == 3:
        return stored.gather(2, slots.unsqueeze(-1).expand(-1, -1, -1, stored.shape[3]))
    if len(slots) == 1:  # whole rows are copied, no index an element
        return stored.index_select(2, slots[0])
    return stored.gather(2, slots[:, None, :, None].expand(-1, stored.shape[1], -1, stored.shape[3]))


def _by_head(index: Tensor) -> Tensor:
    """``(B, heads or 1, K)`` from ``(B, K)`` as well."""
    return index if index.ndim == 3 else index[:, None]


def _picked(columns: Tensor, index: Tensor) -> Tensor:
    """``(B, heads, K)`` of ``columns`` ``(B, heads or 1, S)``, at an index for all heads or for each."""
    index = _by_head(index).to(columns.device)
    heads = max(columns.shape[1], index.shape[1])
    return columns.expand(-1, heads, -1).gather(2, index.expand(-1, heads, -1))


def _followed(held: Tensor, index: Tensor, columns: Tensor) -> Tensor:
    """What each head stores at ``index``: beyond the slots of ``held`` all hold the ``columns`` ``(B, K)``."""
    index = _by_head(index).to(held.device)
    kept = _picked(held, index.clamp(max=held.shape[2] - 1))
    return torch.where(index < held.shape[2], kept, columns[:, None].to(held.device))
