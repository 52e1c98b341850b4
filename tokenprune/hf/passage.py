# SPDX-License-Identifier: Apache-2.0
"""One prefill passing through the decoder: its inputs, layers, masks and cache are shortened at the right moments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from tokenprune.adapter import Removable
from tokenprune.hf.cache import PrunableHandle
from tokenprune.hf.cut import LayerCut
from tokenprune.hf.guard import refuse_dropped_cache
from tokenprune.hf.release import causal_mask, given_cache, require_stored
from tokenprune.runtime.carrier import PrefillCarrier
from tokenprune.runtime.layout import Layout, Ragged
from tokenprune.runtime.prefill import Prefill
from tokenprune.runtime.report import CacheBytes, LayerLog


class Passage:
    """Carries one prefill through one decoder forward; :meth:`enter` before it, :meth:`leave` after it.

    Args:
        text: the decoder.
        carrier: the session's decisions.
        prefill: the prefill that begins.
        kwargs: keyword arguments of the decoder's forward; they are not changed.
        prunable: makes a cache prunable, or raises.
    """

    def __init__(
        self,
        text: PreTrainedModel,
        carrier: PrefillCarrier,
        prefill: Prefill,
        kwargs: dict[str, Any],
        prunable: Callable[[object], PrunableHandle],
    ) -> None:
        self.text = text
        self.layers = list(text.get_submodule("layers").children())
        self.carrier = carrier
        self.prefill = prefill
        self.kwargs = kwargs
        self.prunable = prunable
        self.cache: DynamicCache | None = given_cache(text, kwargs)
        self.handle: PrunableHandle | None = None
        self.gathered: Ragged | None = None  # from the sequence the decoder's own locals describe to the running one
        self.mask_after: Any = None
        self.rotary: tuple[object, tuple[Tensor, ...]] | None = None
        self.stored: list[Layout] = []
        self.log = LayerLog()
        self.shortened = False
        self.hooks: list[Removable] = []

    def enter(self) -> dict[str, Any]:
        """Run the mergers and put the layer hooks on; returns the decoder's keyword arguments."""
        if not len(self.carrier.pipeline):
            return self.kwargs
        merged = self.prefill.merge(self.kwargs["inputs_embeds"])
        if merged is None and not any(self.prefill.will_cut(s) for s in self.carrier.pipeline.selectors):
            self._note_idle_selectors()
            return self.kwargs
        if self.cache is not None:
            self.handle = self.prunable(self.cache)
        changed = dict(self.kwargs)
        if merged is not None:
            changed = self._shortened_inputs(changed, *merged)
        self._hook_layers()
        return changed

    def leave(self, *, completed: bool) -> None:
        """Take the layer hooks off; after a completed forward settle the cache and write the report."""
        while self.hooks:
            self.hooks.pop().remove()
        if not completed:
            return
        self.log.note(self.prefill, len(self.layers) - len(self.log.tokens))
        if self.shortened and self.handle is not None:
            self._settle_cache(self.handle)
        cache_bytes = None if self.cache is None else _cache_bytes(self.cache)
        self.carrier.finish(self.prefill, self.log, self.cache, cache_bytes)

    def _shortened_inputs(self, kwargs: dict[str, Any], ragged: Ragged, embeds: Tensor) -> dict[str, Any]:
        self.shortened = True
        changed = dict(kwargs)
        before = self.prefill.new_length
        changed["inputs_embeds"] = embeds
        changed["position_ids"] = self._gathered_positions(kwargs.get("position_ids"), ragged)
        changed["attention_mask"] = self._mask_2d(kwargs.get("attention_mask"), before)
        return changed

    def _gathered_positions(self, positions: Tensor | None, ragged: Ragged) -> Tensor:
        """The kept tokens' own positions; row 0 of four (text positions) is left out: gaps would look like packing."""
        if positions is None:
            first = self.prefill.first_column
            positions = torch.arange(first, first + self.prefill.new_length, device=ragged.index.device).unsqueeze(0)
        if positions.ndim == 3:
            return ragged.gather(positions[-3:], 1, 2)
        return ragged.gather(positions, 0, 1)

    def _mask_2d(self, base: Tensor | None, new: int) -> Tensor | None:
        """The mask over the stored earlier tokens and the running ones; None where nothing is padded."""
        layout = self.prefill.layout
        earlier = self.prefill.first_column if base is None else base.shape[1] - new
        if base is None and not layout.is_padded and self.handle is not None:
            return None
        if base is None:
            seen = layout.valid.new_ones(len(layout.valid), earlier)
        else:
            seen = base[:, :earlier].to(layout.valid.device).bool()
        return torch.cat([seen, layout.valid], dim=1)

    def _later_mask_2d(self) -> Tensor | None:
        """The same for the layers after a cut; a mask without a gap would only make the library look for one."""
        if not self.prefill.layout.is_padded and self.prefill.first_column == 0:
            return None
        return self._mask_2d(self.kwargs.get("attention_mask"), self.prefill.new_length)

    def _hook_layers(self) -> None:
        cuts = dict(zip(self.carrier.layers, self.carrier.pipeline.selectors))
        first = 0 if self.shortened else min(cuts) + 1
        for index, layer in enumerate(self.layers):
            if index >= first:
                self.hooks.append(layer.register_forward_pre_hook(self._before_layer, with_kwargs=True))
            if index in cuts:
                cut = LayerCut(self, cuts[index], index)
                self.hooks.append(layer.register_forward_pre_hook(cut.before, with_kwargs=True))
                self.hooks.append(layer.register_forward_hook(cut.after, with_kwargs=True, prepend=True))

    def _before_layer(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Hand a layer what fits the shortened sequence; gaps in text positions would be taken for packing."""
        if not self.shortened:
            return None
        changed = {**kwargs, "position_ids": None}
        if self.gathered is not None:
            changed["attention_mask"] = self.mask_after
            changed["position_embeddings"] = self._gathered_rotary(kwargs["position_embeddings"], self.gathered)
        return args, changed

    def _gathered_rotary(self, rotary: tuple[Tensor, ...], ragged: Ragged) -> tuple[Tensor, ...]:
        if self.rotary is None or self.rotary[0] is not rotary:
            parts = tuple(ragged.gather(part, part.ndim - 3, part.ndim - 2) for part in rotary)
            self.rotary = (rotary, parts)
        return self.rotary[1]

    def shorten_after(self, layer: int, hidden: Tensor, ragged: Ragged) -> Tensor:
        """Shorten what layer ``layer`` put out, the cache of the layers up to it, and the mask of the later ones."""
        hidden = ragged.gather(hidden)
        self.gathered = ragged if self.gathered is None else _chained(self.gathered, ragged)
        self.rotary = None
        self.shortened = True
        self._cut_cache()
        if layer + 1 < len(self.layers):
            cache = None if self.handle is None else self.handle.cache
            self.mask_after = causal_mask(self.text, hidden, self._later_mask_2d(), cache, layer + 1)
        return hidden

    def layers_ran(self, count: int) -> None:
        """The layers below ``count`` have run on the running sequence as it is now (before a cut)."""
        self.log.note(self.prefill, count - len(self.log.tokens))
        if self.handle is None:
            return
        stored = self.prefill.stored()
        for index in range(len(self.stored), count):
            held, tokens = self.handle.stored(index), stored.columns.shape[1]
            refuse_dropped_cache(self.text, held, tokens)
            require_stored(self.text, index, held, tokens)
            self.stored.append(stored)

    def _cut_cache(self) -> None:
        """Cut every layer that has run to the tokens still in the sequence; equal layouts share one index."""
        if self.handle is None:
            return
        done: dict[int, tuple[Ragged | None, Layout]] = {}
        for index, layout in enumerate(self.stored):
            if id(layout) not in done:
                ragged = self.prefill.compact(layout)
                done[id(layout)] = (ragged, layout if ragged is None else layout.after(ragged))
            ragged, left = done[id(layout)]
            self.stored[index] = left
            if ragged is not None:
                self.handle.layer(index).take(ragged.index, left.columns, left.valid if left.is_padded else None)

    def _settle_cache(self, handle: PrunableHandle) -> None:
        """Bring all layers to the same stored tokens and tell them which logical columns those are."""
        self.layers_ran(len(self.layers))
        self._cut_cache()
        logical = self.prefill.logical_length
        for index, layout in enumerate(self.stored):
            handle.layer(index).place(layout.columns, layout.valid if layout.is_padded else None, logical)

    def _note_idle_selectors(self) -> None:
        for layer, selector in zip(self.carrier.layers, self.carrier.pipeline.selectors):
            self.prefill.note_idle(selector, layer)


def _chained(first: Ragged, then: Ragged) -> Ragged:
    return Ragged(first.index.gather(1, then.index), then.valid, then.real)


def _cache_bytes(cache: Any) -> CacheBytes:
    stored = unpruned = 0
    for layer in cache.layers:
        if layer.keys is None or layer.keys.numel() == 0:
            continue
        held = layer.keys.nbytes + layer.values.nbytes
        stored += held
        unpruned += held // layer.keys.shape[-2] * layer.get_seq_length()
    return CacheBytes(stored, unpruned)
