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

from tokenprune.adapter import AttentionReader, Removable
from tokenprune.attention_view import AttentionView
from tokenprune.errors import PlanError
from tokenprune.hf.cache import PrunableHandle
from tokenprune.hf.layer import PrunableLayer
from tokenprune.plan import TokenPlan
from tokenprune.runtime.prefill import Prefill
from tokenprune.runtime.slots import Slots
from tokenprune.stage import Stage

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

    def cut(self, handle: PrunableHandle, final: Slots) -> None:
        """Ask the operator about every layer and row, and keep what it names.

        Args:
            handle: the settled cache.
            final: what every layer stores.

        Raises:
            PlanError: a plan is unlawful, or keeps another number than in the first layer.
        """
        state = self.prefill.state
        slot_of = torch.zeros(len(final.valid), state.logical_length, dtype=torch.int64, device=final.columns.device)
        slots = torch.arange(len(final), device=final.columns.device).expand_as(final.columns)
        slot_of.scatter_(1, final.columns, slots)  # a padding slot's column is that of no token that is asked for
        visual = [slot_of[n, state.slots.columns[n, row.places]] for n, row in enumerate(state.rows)]
        text = [slot_of[n, state.slots.columns[n, places]] for n, places in enumerate(state.text_rows)]
        layers = handle.storing
        decided = [self._decide(handle, layer, final, visual, text) for layer in layers]
        counts = [found[0].kept for found in decided[0]]
        for layer, plans in zip(layers, decided):
            for found, count in zip(plans, counts):
                if found[0].kept != count:
                    raise PlanError(
                        f"{self.stage.name} keeps {found[0].kept} tokens in layer {layer}, {count} in layer {layers[0]}"
                    )
        last = max(int(span.columns[-1]) for row in state.rows for span in row.spans)
        for layer, plans in zip(layers, decided):  # all have been asked and checked: nothing is cut before
            _take(handle.layer(layer), final, visual, plans, state.first_column + last + 1)
        self.prefill.press(self.stage, counts, [_shares(of_row) for of_row in zip(*decided)])

    def _decide(
        self, handle: PrunableHandle, layer: int, final: Slots, visual: Sequence[Tensor], text: Sequence[Tensor]
    ) -> list[list[TokenPlan]]:
        """For each row the plans of one layer over all its visual tokens: one, or one for each key-value head."""
        asked, plans = self.prefill.rows_for(self.stage), list[list[TokenPlan]]()
        for number, row in enumerate(self.prefill.state.rows):
            device = row.places.device
            if not asked[number]:
                plans.append([TokenPlan.identity(row.count, device)])
                continue
            tokens = self._tokens(handle, layer, number, final, visual[number], text[number])
            found = self.stage.decide_heads(tokens, len(tokens.signals["attention"].keys()))
            plans.append([row.lift(plan.to(device), row.shown(self.stage.modalities)) for plan in found])
        return plans

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
        stays = final.valid.clone()  # text and earlier turns stay, in every layer and head
        for row, found in enumerate(plans):
            plan = found[min(head, len(found) - 1)]
            stays[row, visual[row]] = False
            stays[row, visual[row][plan.anchors]] = True
        real = [have - len(where) + found[0].kept for have, where, found in zip(final.real, visual, plans)]
        gathered.append(final.keep(stays, real))
    left = final.after(gathered[0])
    # Heads keep other tokens but equally many, so padding stands in the same slots of all, and one mask serves them:
    # which column a slot holds does not matter to it, for all that is kept comes before the next query.
    index = gathered[0].index if heads == 1 else torch.stack([gather.index for gather in gathered], dim=1)
    layer.press(index, left.columns, left.padding_mask, whole_from)


def _shares(layers: Sequence[Sequence[TokenPlan]]) -> Tensor:
    """``(N,)`` fp32: in which share of the layers and heads each of a row's tokens is kept."""
    first = layers[0][0]
    shares = torch.zeros(first.total, device=first.anchors.device)
    for found in layers:
        for plan in found:
            shares[plan.anchors] += 1 / (len(found) * len(layers))
    return shares


def _row(stored: Tensor | None, row: int) -> Tensor:
    if stored is None:
        raise PlanError("a layer of the cache that is to be pressed holds nothing")
    return stored[row]


def _no_queries(rotated: bool) -> Tensor:
    raise PlanError('an operator on the cache that reads queries must say so: needs=("attention",)')
