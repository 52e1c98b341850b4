# SPDX-License-Identifier: Apache-2.0
"""The hooks that carry a prefill through a Hugging Face decoder: no forward is copied, nothing is left behind."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from tokenprune.adapter import Prompt, Removable
from tokenprune.carried import Carried
from tokenprune.errors import UnsupportedModeError
from tokenprune.hf.cache import PrunableHandle, is_plain, is_prunable, make_prunable
from tokenprune.hf.compiled import is_compiling, refuse_compiled, refuse_compiled_around
from tokenprune.hf.copies import guard_copies
from tokenprune.hf.encoder import EncoderHooks, VisionEncoder, embedding_dtype
from tokenprune.hf.forward import PrefillForward
from tokenprune.hf.guard import guard_generate, refuse_forward, refuse_modules, refuse_training
from tokenprune.hf.inputs import earlier_slots, open_cache
from tokenprune.hf.linear import refuse_padding, refuse_unequal
from tokenprune.hf.mass import Fallback, MassBias, carries_mass, require_mass_backend
from tokenprune.hf.net import VISUAL_INPUTS, Net
from tokenprune.hf.reading import require_next
from tokenprune.hf.release import given_cache, require_known, with_cache
from tokenprune.runtime.active import ActivePipeline
from tokenprune.runtime.prefill import Prefill
from tokenprune.runtime.row_signals import Recall, encoder_needs


@dataclass(frozen=True, eq=False)
class HFDecoder:
    """Where a vision-language model's prefill can be reached (:class:`tokenprune.adapter.ModelPort`).

    >>> len(HFDecoder(model, model.model, model.model.language_model).text.layers)
    8

    Args:
        model: the model with the language head, whose ``generate`` is called.
        prompt: the module whose forward receives ``input_ids``.
        text: the decoder, which receives ``inputs_embeds`` and owns ``layers``.
        encoder: where the vision encoder can be read; None: operators that need its signals are refused.
        carried: what travels with the tokens of this family beyond what every decoder has.
        refused_arguments: argument of a call -> why it cannot be given.
    """

    model: PreTrainedModel
    prompt: nn.Module
    text: PreTrainedModel
    encoder: VisionEncoder | None = None
    carried: Sequence[Carried] = ()
    refused_arguments: Mapping[str, str] = field(default_factory=dict[str, str])

    def install(self, active: ActivePipeline) -> Sequence[Removable]:
        refuse_compiled_around(active.adapter.model, self.text)
        if len(active.pipeline):
            refuse_modules(self.model, self.text)
        require_known(self.text)
        require_next(active.stages, self.text, active.reader)
        probe = self._probe(active)
        recall = None if probe is None else probe.recall
        hooks = _Hooks(self.text, active, recall, self.carried, self.refused_arguments)
        put: list[Removable] = [hooks]
        try:
            if active.pipeline.mass is not None:
                if active.fallback is not None and not carries_mass(self.text):
                    put.append(Fallback(self.text, active.fallback))
                require_mass_backend(self.text)
            hooked = (self.model, self.prompt, self.text, *(() if probe is None else probe.modules))
            put += [guard_copies(module, put) for module in dict.fromkeys(hooked)]
            if probe is not None:
                put += probe.put()
            put.append(self.model.register_forward_pre_hook(hooks.before_model, with_kwargs=True))
            put.append(self.prompt.register_forward_pre_hook(hooks.before_prompt, with_kwargs=True))
            put.append(self.prompt.register_forward_hook(hooks.after_prompt, with_kwargs=True, always_call=True))
            put.append(self.text.register_forward_pre_hook(hooks.before_text, with_kwargs=True))
            put.append(self.text.register_forward_hook(hooks.after_text, with_kwargs=True, always_call=True))
            put += guard_generate(self.model, self.text, active, hooks.net, self.refused_arguments)
            if hooks.acts:
                put.append(self.model.register_forward_pre_hook(hooks.net.before_model))
                put.append(self.model.register_forward_hook(hooks.net.after_model))
        except BaseException:
            for handle in put:
                handle.remove()
            raise
        return put

    def _probe(self, active: ActivePipeline) -> EncoderHooks | None:
        """What reads the vision encoder; None where no operator needs it."""
        needed = encoder_needs(active.stages, active.given)
        if not needed:
            return None
        if self.encoder is None:
            name, stage = next(iter(needed.items()))
            raise UnsupportedModeError(
                f"{stage.name} needs the signal {name}, but the adapter of {type(self.model).__name__} does not read "
                f'its vision encoder; give attach(..., signals={{"{name}": f}}), or use another operator'
            )
        return EncoderHooks(self.encoder, tuple(needed), embedding_dtype(self.text))


class _Hooks:
    """The hooks of one session; what it holds of a forward is gone when that forward ends."""

    def __init__(
        self,
        text: PreTrainedModel,
        active: ActivePipeline,
        recall: Recall | None,
        carried: Sequence[Carried],
        refused: Mapping[str, str],
    ) -> None:
        self.text = text
        self.active = active
        self.recall = recall
        self.carried = carried
        self.refused = refused
        self.net = Net()
        self.input_ids: Tensor | None = None
        self.forward: PrefillForward | None = None
        self.bias = MassBias(text)
        self.handle: PrunableHandle | None = None
        self.depth = 0

    @property
    def acts(self) -> bool:
        return len(self.active.pipeline) > 0

    def remove(self) -> None:
        """Take off what an interrupted forward has left (always-called hooks are not called on an interrupt)."""
        self._end_forward(completed=False)
        self.bias.remove()
        self.input_ids = None
        if self.depth:
            self.active.entrance.leave(self.depth)
        self.depth = 0

    def before_model(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.active.entrance.asked = True
        if self.acts:
            refuse_forward(module, args, kwargs, self.refused)

    def before_prompt(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if is_compiling() and not self.acts:
            return
        if self.acts:
            refuse_compiled(module)
            refuse_training(module)
        if self.depth and not self.active.entrance.is_elsewhere:
            self.remove()
        depth = self.active.entrance.enter(sys._getframe(1))
        if not depth:
            return
        self.depth = depth
        self.input_ids = kwargs.get("input_ids", args[0] if args else None)
        if self.acts and self.input_ids is None and any(kwargs.get(name) is not None for name in VISUAL_INPUTS):
            raise UnsupportedModeError("inputs_embeds beside visual inputs cannot be pruned; pass input_ids")

    def after_prompt(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        if self.depth and not self.active.entrance.is_elsewhere:
            self.remove()

    def before_text(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        embeds = kwargs.get("inputs_embeds")
        if embeds is None or self.active.entrance.is_unobserved or (is_compiling() and not self.acts):
            return None
        if self.acts:
            refuse_compiled(module)
        if self.depth:
            self.net.passed()
        cache = given_cache(self.text, kwargs)
        past = 0 if cache is None else cache.get_seq_length()
        changed = dict(kwargs)
        if self.acts and not (past and embeds.shape[1] == 1):
            refuse_padding(self.text, _mask(kwargs, self.acts), embeds.shape[1], past)
        if is_prunable(cache):
            handle = self._open(make_prunable(cache))
            changed["attention_mask"] = handle.stored_mask(_mask(kwargs, self.acts), embeds.shape[1])
        self.bias.begin(cache)
        is_decoding = past > 0 and embeds.shape[1] == 1
        prefill = None if is_decoding else self._begin(embeds, kwargs, past)
        changed = self._prepared_for_later(changed, past)
        if prefill is None:
            return args, changed
        self.forward = PrefillForward(self.text, self.active, prefill, changed, self.bias, self._prunable, self.carried)
        return args, self.forward.enter()

    def after_text(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        if not self.active.entrance.is_elsewhere:
            self._end_forward(completed=output is not None)

    def _end_forward(self, *, completed: bool) -> None:
        forward, self.forward = self.forward, None
        try:
            if forward is not None:
                forward.leave(completed=completed)
        finally:
            self.bias.end()
            if self.handle is not None:
                self.handle.gate.is_open = False
            self.handle = None

    def _begin(self, embeds: Tensor, kwargs: dict[str, Any], past: int) -> Prefill | None:
        if self.input_ids is None:
            if self.acts and _is_visual(kwargs.get("position_ids")):
                raise UnsupportedModeError("inputs_embeds with visual tokens cannot be pruned; pass input_ids")
            return None
        given = _mask(kwargs, self.acts)
        length = embeds.shape[1]
        valid = self.input_ids.new_ones(self.input_ids.shape).bool() if given is None else given[:, -length:].bool()
        valid = valid.to(self.input_ids.device)
        earlier = earlier_slots(given_cache(self.text, kwargs), given, past, len(valid))
        prompt = Prompt(self.input_ids, kwargs.get("position_ids"), valid)
        prefill = self.active.begin(prompt, earlier, past)
        if prefill is not None:
            refuse_unequal(self.text, prefill, past)
            self.active.take_signals(prefill, embeds, self.recall)
        return prefill

    def _prunable(self, cache: object) -> PrunableHandle:
        return self._open(make_prunable(cache))

    def _open(self, handle: PrunableHandle) -> PrunableHandle:
        self.handle = handle
        handle.gate.is_open = True
        return handle

    def _prepared_for_later(self, kwargs: dict[str, Any], past: int) -> dict[str, Any]:
        """A turn that loses nothing starts a cache that a later turn's video can be cut in."""
        if past > 0:
            return with_cache(self.text, kwargs, given_cache(self.text, kwargs))
        opened = open_cache(self.text, kwargs)
        cache = given_cache(self.text, opened)
        if self.acts and is_plain(cache):
            make_prunable(cache)
        return opened


def _is_visual(positions: Tensor | None) -> bool:
    """Whether M-RoPE positions are those of a prompt with visual tokens: text has the same t, h and w."""
    return positions is not None and positions.ndim == 3 and not bool((positions[-3:] == positions[-1:]).all())


def _mask(kwargs: dict[str, Any], acts: bool) -> Tensor | None:
    mask = kwargs.get("attention_mask")
    if mask is None or (isinstance(mask, Tensor) and mask.ndim == 2):
        return mask
    if acts:
        raise UnsupportedModeError("only a 2-D attention_mask (or none) can be pruned along with the tokens")
    return None
