# SPDX-License-Identifier: Apache-2.0
"""What an operator at a layer is shown of that layer and its neighbours; nothing is kept that it does not read.

The layer itself and the one before are watched while they run. The one after has not run: what its projections make of
the present hidden states is computed when it is asked for, for the text rows' queries and for the keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from tokenprune.adapter import AttentionReader, Removable
from tokenprune.attention_view import AttentionView
from tokenprune.errors import UnsupportedModeError
from tokenprune.hf.attention import ProjectionReader
from tokenprune.hf.cache import PrunableHandle
from tokenprune.runtime.state import TokenState
from tokenprune.signals import ATTENTION, ATTENTION_BEFORE, ATTENTION_NEXT, HIDDEN_BEFORE
from tokenprune.stage import Stage


@dataclass(eq=False)
class StageReading:
    """One operator's look at its layer during one prefill.

    Args:
        stage: the operator.
        layer: the layer after which it acts.
        layers: the decoder's layers.
        state: the prefill's tokens.
        reader: makes a reader of one layer's attention.
        handle: the cache, where there is one that can be cut.
        entering_next: what a layer puts out -> what the next is given, with what the decoder adds in between.
        alone_before: whether no other operator acts after the layer before, which ran on the same tokens then.
        can_read: whether a layer has attention to be read.
    """

    stage: Stage
    layer: int
    layers: Sequence[nn.Module]
    state: TokenState
    reader: Callable[[int], AttentionReader]
    handle: Callable[[], PrunableHandle | None]
    entering_next: Callable[[Tensor], Tensor]
    alone_before: bool = True
    can_read: Callable[[int], bool] = lambda layer: True
    _readers: dict[int, AttentionReader] = field(default_factory=dict[int, AttentionReader])
    _watching: list[Removable] = field(default_factory=list[Removable])
    _given: Tensor | None = None  # (B, S, D) hidden states that the layer was given
    _rotary: tuple[Tensor, Tensor] | None = None

    @property
    def watches_before(self) -> bool:
        """Whether the layer before is to be watched."""
        return self.stage.may_read(ATTENTION_BEFORE) and self.layer > 0 and self.alone_before

    def watch(self, offset: int, rows: Sequence[Tensor]) -> Sequence[Removable]:
        """Before the layer (0), or the one before it (-1), runs: watch its projections at these rows."""
        if not self.stage.may_read(ATTENTION if offset == 0 else ATTENTION_BEFORE):
            return []
        if not self.can_read(self.layer + offset):
            return []
        self._readers[offset] = self.reader(self.layer + offset)
        watching = list(self._readers[offset].watch(rows))
        self._watching += watching
        return watching

    def close(self) -> None:
        """The operator has been asked: forget everything."""
        while self._watching:
            self._watching.pop().remove()
        self._readers.clear()
        self._given = self._rotary = None

    def enter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """What the layer itself is given."""
        if self.stage.may_read(HIDDEN_BEFORE) and self.layer > 0:
            self._given = args[0] if args else kwargs["hidden_states"]
        if self.stage.may_read(ATTENTION_NEXT):
            self._rotary = kwargs["position_embeddings"]

    def view(self, row: int, places: Tensor, hidden: Tensor) -> AttentionView:
        """The view of one row.

        Args:
            row: which.
            places: ``(N,)`` slots of the visual tokens in the running batch.
            hidden: ``(B, S, D)`` what the layer puts out.
        """
        own = self._of_layer(0, self._readers.get(0), row, places, hidden)
        return replace(own, neighbour=lambda offset: self._neighbour(offset, row, places, hidden))

    def _neighbour(self, offset: int, row: int, places: Tensor, hidden: Tensor) -> AttentionView:
        index, name = self.layer + offset, self.stage.name
        if 0 < offset and index < len(self.layers) and not self.can_read(index):
            raise UnsupportedModeError(f"{name} reads the attention of layer {index}, which has none")
        if not 0 <= index < len(self.layers):
            raise UnsupportedModeError(f"{name} reads layer {offset:+d} from its own, {self.layer}: there is none")
        if offset < 0:
            return self._of_layer(-1, self._readers.get(-1), row, places, self._given)
        if self._rotary is None:
            _refuse(name, ATTENTION_NEXT)
        ahead = ahead_of(self.layers[index], self.reader(index), name)
        ahead.look(self.entering_next(hidden)[row], self.state.text_rows[row], row, self._rotary)
        return self._of_layer(1, ahead.reader, row, places, None, at=0)

    def _of_layer(
        self,
        offset: int,
        reader: AttentionReader | None,
        row: int,
        places: Tensor,
        hidden: Tensor | None,
        at: int | None = None,
    ) -> AttentionView:
        """The layer ``offset`` from the operator's own; ``at``: the row by which its reader knows this one."""
        state, handle = self.state, self.handle()
        stored = state.stored()
        index = self.layer + offset
        there = handle is not None and index < len(handle.cache.layers) and handle.stores(index)
        layer = handle.layer(index) if handle is not None and there else None
        keys = None if layer is None or layer.keys is None else layer.keys[row]
        values = None if layer is None or layer.values is None else layer.values[row]
        earlier = 0 if state.earlier is None else len(state.earlier)
        mass = None if stored.mass is None else stored.mass[row]
        if reader is not None:
            # Earlier keys come from the cache, rotated; those of this prefill from the projections, before RoPE too.
            held = None if not earlier or keys is None else keys[:, :earlier]
            view = reader.view(row if at is None else at, held, stored.valid[row], places, mass)
        else:
            view = self._unread(offset, row, places, stored.valid[row], earlier)
        whole = values is not None and values.shape[1] == len(stored)
        return replace(
            view,
            read_values=(lambda: values) if whole else None,
            read_hidden=None if hidden is None else lambda columns: _rows(hidden[row], columns - earlier),
        )

    def _unread(self, offset: int, row: int, places: Tensor, valid: Tensor, earlier: int) -> AttentionView:
        what = {-1: ATTENTION_BEFORE, 0: ATTENTION}[offset]

        def refuse(rotated: bool) -> NoReturn:
            if offset < 0 and not self.can_read(self.layer - 1):
                raise UnsupportedModeError(
                    f"{self.stage.name} reads the attention of layer {self.layer - 1}, which has none"
                )
            if offset < 0 and not self.alone_before:
                raise UnsupportedModeError(
                    f"{self.stage.name} cannot read the attention of layer {self.layer - 1}, where another acts"
                )
            _refuse(self.stage.name, what)

        return AttentionView(refuse, refuse, self.state.text_rows[row] + earlier, places + earlier, valid, 1.0)


@dataclass(frozen=True, eq=False)
class Ahead:
    """A layer that has not run: its first norm, and the reader of its projections."""

    norm: nn.Module
    reader: ProjectionReader

    def look(self, hidden: Tensor, rows: Tensor, row: int, rotary: tuple[Tensor, Tensor]) -> None:
        """Let the reader see what the projections make of ``(S, D)`` hidden states of one row."""
        with torch.no_grad():
            normed = self.norm(_beside(hidden, self.norm)[None])
            one = tuple(part[row if len(part) > 1 else 0][None] for part in rotary)
            self.reader.project(normed, rows, (one[0], one[1]))


def ahead_of(layer: nn.Module, reader: AttentionReader, name: str) -> Ahead:
    """How the attention of a layer that has not run is read.

    Raises:
        UnsupportedModeError: its norm is not found, or its reader cannot.
    """
    norm = getattr(layer, "input_layernorm", None)
    if not isinstance(norm, nn.Module) or not isinstance(reader, ProjectionReader) or not reader.projects:
        raise UnsupportedModeError(
            f"{name} reads the attention of the next layer, which cannot be computed for a {type(layer).__name__}"
        )
    return Ahead(norm, reader)


def require_next(stages: Sequence[Stage], text: nn.Module, reader: Callable[[int], AttentionReader]) -> None:
    """Raise where an operator says that it reads the next layer, and it cannot be read."""
    layers = list(text.get_submodule("layers").children())
    for stage in stages:
        if stage.layer is not None and ATTENTION_NEXT in (stage.reads or ()):
            ahead_of(layers[stage.layer + 1], reader(stage.layer + 1), stage.name)


def _rows(hidden: Tensor, places: Tensor) -> Tensor:
    return hidden[places.to(hidden.device)]


def _beside(x: Tensor, module: nn.Module) -> Tensor:
    """``x`` where the module's weights are; those that are offloaded are fetched by hooks of their own."""
    weight = next(module.parameters(), None)
    return x if weight is None or weight.device.type == "meta" else x.to(weight.device)


def _refuse(name: str, what: str) -> NoReturn:
    raise UnsupportedModeError(f"{name} reads {what}, which was not captured, for it is not among its reads")
