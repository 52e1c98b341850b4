# SPDX-License-Identifier: Apache-2.0
"""A press: after the prefill every layer of the cache keeps the visual tokens that its own plan names.

All layers, and all key-value heads, keep equally many, so that one mask and one length still serve them all. Which ones
may differ from layer to layer; text and the tokens of earlier turns stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache

from tokenprune.adapter import AttentionReader, Removable
from tokenprune.attention_view import AttentionView
from tokenprune.errors import PlanError
from tokenprune.hf.cache import PrunableHandle
from tokenprune.hf.layer import PrunableLayer
from tokenprune.operator import Stage
from tokenprune.plan import TokenPlan
from tokenprune.runtime.prefill import Prefill
from tokenprune.runtime.slots import Slots

Queries = Callable[[bool], Tensor]


@dataclass(eq=False)
class Press:
    """One operator on the finished cache of one prefill.

    Args:
        stage: the operator.
        prefill: the prefill.
    """

    stage: Stage
    prefill: Prefill
    _queries: dict[int, list[tuple[Queries, float]]] = field(default_factory=dict[int, Any])

    def remember(self, layer: int, reader: AttentionReader) -> None:
        """Keep the text rows' queries of a layer that has just run: all that is needed beside the cache."""
        valid, nothing = self.prefill.state.slots.valid, self.prefill.state.slots.columns.new_zeros(0)
        views = [reader.view(row, None, valid[row], nothing) for row in range(len(valid))]
        self._queries[layer] = [(view.read_queries, view.scaling) for view in views]

    def cut(self, handle: PrunableHandle, final: Slots, layers: int) -> None:
        """Ask the operator about every layer and row, and keep what it names.

        Args:
            handle: the settled cache.
            final: what every layer stores.
            layers: number of layers.

        Raises:
            PlanError: a plan is unlawful, or keeps another number than in the first layer.
        """
        state = self.prefill.state
        slot_of = torch.zeros(len(final.valid), state.logical_length, dtype=torch.int64, device=final.columns.device)
        slots = torch.arange(len(final), device=final.columns.device).expand_as(final.columns)
        slot_of.scatter_(1, final.columns, slots)  # a padding slot's column is that of no token that is asked for
        visual = [slot_of[n, state.slots.columns[n, row.places]] for n, row in enumerate(state.rows)]
        text = [slot_of[n, state.slots.columns[n, places]] for n, places in enumerate(state.text_rows)]
        asked = self.prefill.rows_for(self.stage)
        shares = [torch.zeros(row.count, device=row.places.device) for row in state.rows]
        counts = [row.count for row in state.rows]
        decided: list[list[list[TokenPlan]]] = []
        for layer in range(layers):
            plans: list[list[TokenPlan]] = []
            for number, row in enumerate(state.rows):
                found = [TokenPlan.identity(row.count, final.columns.device)]
                if asked[number]:
                    tokens = self._tokens(handle, layer, number, final, visual[number], text[number])
                    heads = int(tokens.signals["attention"].keys().shape[0])
                    shown = row.shown(self.stage.modalities)
                    plans_here = self.stage.decide_heads(tokens, heads)
                    found = [row.lift(plan.to(row.places.device), shown) for plan in plans_here]
                if layer and found[0].kept != counts[number]:
                    raise PlanError(
                        f"{self.stage.name} keeps {found[0].kept} tokens in layer {layer}, {counts[number]} in layer 0"
                    )
                counts[number] = found[0].kept
                for plan in found:
                    shares[number][plan.anchors] += 1 / (len(found) * layers)
                plans.append(found)
            decided.append(plans)
        last = max(int(span.columns[-1]) for row in state.rows for span in row.spans)
        for layer, plans in enumerate(decided):  # all have been asked and checked: nothing is cut before
            _take(handle.layer(layer), final, visual, plans, state.first_column + last + 1)
        self.prefill.press(self.stage, counts, shares)

    def _tokens(self, handle: PrunableHandle, layer: int, row: int, final: Slots, visual: Tensor, text: Tensor) -> Any:
        stored = handle.layer(layer)
        keys, values = _row(stored.keys, row), _row(stored.values, row)
        state = self.prefill.state.rows[row]
        shown = state.shown(self.stage.modalities)
        index = state.index(shown)
        places = visual if index is None else visual[index]
        queries, scaling = self._queries[layer][row] if self._queries else (_no_queries, 1.0)
        view = AttentionView(
            queries, lambda rotated: keys, text, places, final.valid[row], scaling, read_values=lambda: values
        )
        flat = keys.transpose(0, 1).flatten(1)  # (S, kv_heads * head_dim)
        return state.tokens_at(shown, flat[places.to(flat.device)], {"attention": view})


@dataclass(eq=False)
class Watch:
    """The hooks around one layer of which a press wants the queries."""

    press: Press
    reader: AttentionReader
    layer: int
    _watching: list[Removable] = field(default_factory=list[Removable])

    def before(self, module: Any, args: Any, kwargs: Any) -> None:
        asked = self.press.prefill.rows_for(self.press.stage)
        rows = [places if yes else places[:0] for places, yes in zip(self.press.prefill.state.text_rows, asked)]
        self._watching.extend(self.reader.watch(rows))

    def after(self, module: Any, args: Any, kwargs: Any, output: Any) -> None:
        while self._watching:
            self._watching.pop().remove()
        self.press.remember(self.layer, self.reader)


def held_anywhere(cache: DynamicCache) -> Tensor | None:
    """``(B, tokens so far)`` bool, which tokens any layer or head stores; None: no press has cut this cache."""
    layers = [layer for layer in cache.layers if isinstance(layer, PrunableLayer) and layer.held is not None]
    if not layers:
        return None
    length, nowhere = layers[0].get_seq_length(), layers[0].get_seq_length()
    held = torch.zeros(len(layers[0].slot_columns()), length + 1, dtype=torch.bool)
    for layer in layers:
        columns, valid = layer.slot_columns_by_head(), layer.slot_valid()
        columns = columns if valid is None else columns.masked_fill(~valid[:, None].to(columns.device), nowhere)
        held.scatter_(1, columns.flatten(1).cpu(), True)
    return held[:, :length]


def _take(
    layer: PrunableLayer,
    final: Slots,
    visual: Sequence[Tensor],
    plans: Sequence[Sequence[TokenPlan]],
    whole_from: int,
) -> None:
    """Keep, in one layer, all that is no visual token of this prefill, and of those what the plans name."""
    heads = max(len(found) for found in plans)
    gathered: list[Any] = []
    for head in range(heads):
        stays = final.valid.clone()
        for row, found in enumerate(plans):
            plan = found[min(head, len(found) - 1)]
            stays[row, visual[row]] = False
            stays[row, visual[row][plan.anchors]] = True
        real = [have - len(where) + found[0].kept for have, where, found in zip(final.real, visual, plans)]
        gathered.append(final.keep(stays, real))
    left = final.after(gathered[0])
    index = gathered[0].index if heads == 1 else torch.stack([gather.index for gather in gathered], dim=1)
    layer.press(index, left.columns, left.padding_mask, whole_from)


def _row(stored: Tensor | None, row: int) -> Tensor:
    if stored is None:
        raise PlanError("a layer of the cache that is to be pressed holds nothing")
    return stored[row]


def _no_queries(rotated: bool) -> Tensor:
    raise PlanError('an operator on the cache that reads queries must say so: needs=("attention",)')
