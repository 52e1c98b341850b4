# SPDX-License-Identifier: Apache-2.0
"""One prefill in one forward of the decoder: begin, before the LLM, after layer N, end.

What travels with the tokens is shortened by the steps of :mod:`tokenprune.runtime.state`, each thing by the rule that
:mod:`tokenprune.hf.carried` declares for it; the cache is cut to what is left, and masks are made anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from tokenprune.adapter import Removable
from tokenprune.attention_view import AttentionView
from tokenprune.carried import Carried
from tokenprune.errors import UnsupportedModeError
from tokenprune.hf.cache import PrunableHandle, held_anywhere, keeps_state
from tokenprune.hf.carried import Cargo
from tokenprune.hf.guard import refuse_dropped_cache
from tokenprune.hf.mass import MassBias, holds_mass, require_mass_backend
from tokenprune.hf.press import Press, Watch
from tokenprune.hf.reading import StageReading
from tokenprune.hf.release import given_cache, kind_of, masks_after, require_stored
from tokenprune.operator import AFTER_LAYER, AFTER_PREFILL, BEFORE_LLM
from tokenprune.runtime.active import ActivePipeline
from tokenprune.runtime.log import tell_attention
from tokenprune.runtime.prefill import Prefill
from tokenprune.runtime.report import CacheBytes, LayerLog
from tokenprune.runtime.slots import Gather, Slots
from tokenprune.runtime.state import Step
from tokenprune.signals import ATTENTION, VALUES
from tokenprune.stage import Stage


class PrefillForward:
    """Takes one prefill through one decoder forward; :meth:`enter` before it, :meth:`leave` after it.

    Args:
        text: the decoder.
        active: the session.
        prefill: the prefill that begins.
        kwargs: keyword arguments of the decoder's forward; they are not changed.
        bias: adds the mass of the running batch.
        prunable: makes a cache prunable, or raises.
        carried: what travels with the tokens in this family beyond what every decoder has.
    """

    def __init__(
        self,
        text: PreTrainedModel,
        active: ActivePipeline,
        prefill: Prefill,
        kwargs: dict[str, Any],
        bias: MassBias,
        prunable: Callable[[object], PrunableHandle],
        carried: Sequence[Carried] = (),
    ) -> None:
        self.text = text
        self.layers = list(text.get_submodule("layers").children())
        self.active = active
        self.prefill = prefill
        self.state = prefill.state
        self.kwargs = kwargs
        self.bias = bias
        self.prunable = prunable
        self.cache: DynamicCache | None = given_cache(text, kwargs)
        self.handle: PrunableHandle | None = None
        self.cargo = Cargo(carried)
        self.masked_anew = False
        self.masks_after: dict[str, Any] = {}
        self.stored: dict[int, Slots] = {}  # what each layer that stores tokens holds
        self.looked_at = 0  # layers below have been asked what they hold
        self.log = LayerLog()
        self.shortened = False
        self.press: Press | None = None
        self.hooks: list[Removable] = []

    def enter(self) -> dict[str, Any]:
        """Act before the LLM and put the layer hooks on; returns the decoder's keyword arguments."""
        if not self.prefill.stages:
            return self.kwargs
        if not self.prefill.may_act():
            for stage in self.prefill.stages:
                self.prefill.note_idle(stage)
            return self.kwargs
        if self.active.pipeline.mass is not None:
            require_mass_backend(self.text)
        self._require_values()
        self._require_no_mass_to_press()
        changed = self._act_before_llm()
        if not self.shortened and not self.prefill.may_act([AFTER_LAYER, AFTER_PREFILL]):
            for stage in self.prefill.stages[len(self.prefill.records) :]:
                self.prefill.note_idle(stage)
            return self.kwargs
        if self.cache is not None:
            self.handle = self.prunable(self.cache)
        if self.shortened:
            # The decoder makes its causal mask from this one, over what the cache stores and what it is handed now.
            changed["attention_mask"] = self._mask_2d(self.kwargs.get("attention_mask"))
            self.bias.run_on(self.state.slots.mass)
        return self._hook_layers(changed)

    def leave(self, *, completed: bool) -> None:
        """Take the layer hooks off; after a completed forward settle the cache and write the report."""
        while self.hooks:
            self.hooks.pop().remove()
        if not completed:
            return
        self.log.note(self.prefill, len(self.layers) - len(self.log.tokens))
        if self.handle is not None and (self.shortened or self.press is not None):
            final = self._settle_cache(self.handle)
            if self.press is not None and any(self.prefill.rows_for(self.press.stage)):
                self.press.cut(self.handle, final)
        for stage in self.prefill.stages[len(self.prefill.records) :]:
            self.prefill.note_idle(stage)
        cache_bytes = None if self.cache is None else _cache_bytes(self.cache)
        held = None if self.cache is None else held_anywhere(self.cache)
        self.active.finish(self.prefill, self.log, self.cache, cache_bytes, held)

    def _require_values(self) -> None:
        for stage in self.prefill.stages if self.cache is None else ():
            if stage.layer is not None and VALUES in (stage.reads or ()):
                raise UnsupportedModeError(f"{stage.name} reads values, which are taken from the cache; use_cache=True")

    def _require_no_mass_to_press(self) -> None:
        """A pipeline with mass has no press, but an earlier turn's tokens may have theirs."""
        for stage in self.prefill.at(AFTER_PREFILL) if holds_mass(self.cache) else ():
            if any(self.prefill.rows_for(stage)):
                raise UnsupportedModeError(
                    f"{stage.name} cannot press beside tokens of an earlier turn that stand for several in attention; "
                    "begin with mass=None, or attach a pipeline without it"
                )

    def _act_before_llm(self) -> dict[str, Any]:
        changed = dict(self.kwargs)
        for stage in self.prefill.at(BEFORE_LLM):
            embeds: Tensor = changed["inputs_embeds"]
            self.prefill.take_features(embeds)
            step = self.prefill.decide(stage, embeds)
            if step is None:
                continue
            changed["position_ids"] = self._positions(changed.get("position_ids"), embeds)
            changed = self.cargo.shorten_arguments(changed, step)
            self.prefill.ending_now(embeds.device)
            self.shortened = True
        self.prefill.take_features(changed["inputs_embeds"])
        return changed

    def _positions(self, positions: Tensor | None, embeds: Tensor) -> Tensor:
        """The tokens' own positions; row 0 of four (text positions) is left out: gaps would look like packing."""
        if positions is not None:
            return positions[-3:] if positions.ndim == 3 else positions
        first = self.state.first_column
        return torch.arange(first, first + embeds.shape[1], device=embeds.device).unsqueeze(0)

    def _mask_2d(self, base: Tensor | None) -> Tensor | None:
        """The mask over the stored earlier tokens and the running ones; None where nothing is padded."""
        slots = self.state.slots
        earlier = self.state.first_column if base is None else base.shape[1] - self.state.new_length
        if base is None and not slots.is_padded and self.handle is not None:
            return None
        if base is None:
            seen = slots.valid.new_ones(len(slots.valid), earlier)
        else:
            seen = base[:, :earlier].to(slots.valid.device).bool()
        return torch.cat([seen, slots.valid], dim=1)

    def _later_mask_2d(self) -> Tensor | None:
        """The same for the layers after a cut; a mask without a gap would only make the library look for one."""
        if not self.state.slots.is_padded and self.state.first_column == 0:
            return None
        return self._mask_2d(self.kwargs.get("attention_mask"))

    def _hook_layers(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Put the hooks of a prefill on the layers; returns the decoder's arguments without what they will add."""
        cuts: dict[int, Stage] = {s.layer: s for s in self.prefill.stages if s.layer is not None}
        if min(cuts, default=len(self.layers)) < self.cargo.count_additions(arguments):
            arguments = self.cargo.take_additions(arguments)
        places = {layer: _StageAtLayer(self, stage, self._reading(stage, layer, cuts)) for layer, stage in cuts.items()}
        # Up to the first cut the decoder's own arguments and mask fit: nothing is put before those layers.
        first = 0 if self.shortened else min(cuts, default=len(self.layers)) + 1
        press = next((Press(stage, self.prefill) for stage in self.prefill.at(AFTER_PREFILL)), None)
        self.press = press if self.cache is not None else None  # without a cache there is nothing to press
        for index, layer in enumerate(self.layers):
            if index >= first:
                self.hooks.append(layer.register_forward_pre_hook(_Handing(self, index), with_kwargs=True))
            if index + 1 in places and places[index + 1].reading.watches_before:
                self.hooks.append(layer.register_forward_pre_hook(places[index + 1].before_previous))
            if index in places:
                at = places[index]
                self.hooks.append(layer.register_forward_pre_hook(at.before, with_kwargs=True))
                # Before the hooks of others, so that what they capture is what the next layer sees.
                self.hooks.append(layer.register_forward_hook(at.after, with_kwargs=True, prepend=True))
            stores = self.handle is None or self.handle.stores(index)
            if self.press is not None and "attention" in self.press.stage.needs and stores:
                watch = Watch(self.press, self.active.reader(index), index)
                self.hooks.append(layer.register_forward_pre_hook(watch.before, with_kwargs=True))
                self.hooks.append(layer.register_forward_hook(watch.after, with_kwargs=True, prepend=True))
            if index < len(self.cargo.additions):  # behind the hooks of others, as the decoder itself does it
                self.hooks.append(layer.register_forward_hook(_Adding(self.cargo, index)))
        return arguments

    def _before_layer(
        self, index: int, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Hand a layer what fits the shortened sequence; gaps in text positions would be taken for packing."""
        if not self.shortened:
            return None
        changed = self.cargo.for_layer({**kwargs, "position_ids": None})
        if self.masked_anew:
            changed["attention_mask"] = self.masks_after[kind_of(self.text, index)]
        return args, changed

    def _reading(self, stage: Stage, layer: int, cuts: Mapping[int, Stage]) -> StageReading:
        def added(hidden: Tensor) -> Tensor:
            return self.cargo.add(hidden, layer) if layer < len(self.cargo.additions) else hidden

        reader, alone, can_read = self.active.reader, layer - 1 not in cuts, self.active.adapter.can_read
        return StageReading(stage, layer, self.layers, self.state, reader, lambda: self.handle, added, alone, can_read)

    def asked_rows(self, stage: Stage) -> list[Tensor]:
        """The text rows of each prompt row, none of those about which the operator will not be asked."""
        asked = self.prefill.rows_for(stage)
        return [places if yes else places[:0] for places, yes in zip(self.state.text_rows, asked)]

    def after_stage(self, stage: Stage, layer: int, hidden: Tensor, reading: StageReading) -> Tensor | None:
        """After its layer: ask the operator, and hand on what stays; None where nothing changes."""
        self._layers_ran(layer + 1)
        if not any(self.prefill.rows_for(stage)):
            self.prefill.note_idle(stage)
            return None

        def attend(row: int, places: Tensor) -> AttentionView:
            view = reading.view(row, places, hidden)
            if stage.may_read(ATTENTION):
                tell_attention(stage, row, view)
            return view

        step = self.prefill.decide(stage, hidden, attend)
        if step is None:
            return None
        shorter = self._shorten_after(layer, hidden, step)
        self.prefill.ending_now(hidden.device)
        return shorter

    def _shorten_after(self, layer: int, hidden: Tensor, step: Step) -> Tensor:
        """Shorten what layer ``layer`` put out, the cache of the layers up to it, and the mask of the later ones."""
        hidden = self.cargo.shorten_hidden(hidden, step)
        self.shortened = self.masked_anew = True
        self._cut_cache()
        if layer + 1 < len(self.layers):
            cache = None if self.handle is None else self.handle.cache
            # The decoder has made one mask for all layers, over the longer sequence. Later ones get one over what is
            # left, with the lengths of the next layer's own cache, into which nothing of this prefill has come yet.
            self.masks_after = masks_after(self.text, hidden, self._later_mask_2d(), cache, layer + 1)
            self.bias.run_on(self.state.slots.mass)
        return hidden

    def _layers_ran(self, count: int) -> None:
        """The layers below ``count`` have run on the running sequence as it is now (before a cut)."""
        self.log.note(self.prefill, count - len(self.log.tokens))
        if self.handle is None:
            return
        stored = self.state.stored()
        for index in filter(self.handle.stores, range(self.looked_at, count)):
            held = self.handle.stored(index)
            refuse_dropped_cache(self.text, held, len(stored))
            require_stored(self.text, index, held, len(stored))
            self.stored[index] = stored
        self.looked_at = count

    def _cut_cache(self) -> None:
        """Cut every layer that has run to the tokens still in the sequence; equal contents share one index."""
        if self.handle is None:
            return
        # Only layers that have run: the later ones will be given, and will store, nothing but what is left.
        done: dict[int, tuple[Gather | None, Slots]] = {}
        for index, slots in self.stored.items():
            if id(slots) not in done:
                gather = self.state.compact(slots)
                done[id(slots)] = (gather, slots if gather is None else slots.after(gather))
            gather, left = done[id(slots)]
            self.stored[index] = left
            if gather is not None:
                self.handle.layer(index).take(gather.index, left.columns, left.padding_mask)

    def _settle_cache(self, handle: PrunableHandle) -> Slots:
        """Bring all layers to the same stored tokens and tell them which those are and what they stand for.

        Layers before a cut counted its tokens as they were then; later queries count them as they are now.
        """
        self._layers_ran(len(self.layers))
        self._cut_cache()
        final = self.state.stored()
        gather = self.state.compact(final)
        final = final if gather is None else final.after(gather)
        for index, slots in self.stored.items():
            handle.layer(index).place(slots.columns, slots.padding_mask, final.mass, self.state.logical_length)
        return final


@dataclass(eq=False)
class _StageAtLayer:
    """The hooks around the layer after which an operator acts."""

    forward: PrefillForward
    stage: Stage
    reading: StageReading

    def before_previous(self, module: nn.Module, args: Any) -> None:
        self._watch(-1)

    def before(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if any(self.forward.prefill.rows_for(self.stage)):
            self.reading.enter(args, kwargs)
        self._watch(0)

    def after(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        hidden = output if isinstance(output, Tensor) else output[0]
        shorter = self.forward.after_stage(self.stage, self.reading.layer, hidden, self.reading)
        self.reading.close()
        if shorter is None:
            return None
        return shorter if isinstance(output, Tensor) else (shorter, *output[1:])

    def _watch(self, offset: int) -> None:
        """Watch what attention reads, if that will be needed."""
        if any(self.forward.prefill.rows_for(self.stage)):
            self.forward.hooks += self.reading.watch(offset, self.forward.asked_rows(self.stage))


@dataclass(frozen=True, eq=False)
class _Handing:
    """The hook before a layer that comes after a cut."""

    forward: PrefillForward
    index: int

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self.forward._before_layer(self.index, args, kwargs)


@dataclass(frozen=True, eq=False)
class _Adding:
    """A hook that adds what the decoder itself would have added after a layer, had nothing been shortened."""

    cargo: Cargo
    layer: int

    def __call__(self, module: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, Tensor):
            return self.cargo.add(output, self.layer)
        return (self.cargo.add(output[0], self.layer), *output[1:])


def _cache_bytes(cache: Any) -> CacheBytes:
    stored = unpruned = 0
    for layer in cache.layers:
        if keeps_state(layer) or layer.keys is None or layer.keys.numel() == 0:
            continue
        held = layer.keys.nbytes + layer.values.nbytes
        stored += held
        unpruned += held // layer.keys.shape[-2] * layer.get_seq_length()
    return CacheBytes(stored, unpruned)
