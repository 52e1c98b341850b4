# SPDX-License-Identifier: Apache-2.0
"""Attention mass: log(mass) of each key is added to whatever mask an attention module is given.

The mass lives with what it speaks of: beside each slot of a cache layer, and in the running batch of a prefill. So it
applies to every later use of the cache, whatever pipeline is attached then.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from tokenprune.adapter import Removable
from tokenprune.errors import TokenPruneWarning, UnsupportedModeError
from tokenprune.hf.layer import PrunableLayer
from tokenprune.hf.mass_mask import with_bias
from tokenprune.hf.release import LINEAR, kind_of

CARRIERS = ("eager", "sdpa", "flex_attention")
"""Attention backends that add a mask of numbers to the logits."""


def backend_of(text: PreTrainedModel) -> str:
    """The attention backend that the decoder uses now."""
    return str(getattr(text.config, "_attn_implementation", None) or "eager")


def holds_mass(cache: object) -> bool:
    """Whether a slot of this cache may stand for several tokens."""
    layers = cache.layers if isinstance(cache, DynamicCache) else []
    return any(isinstance(layer, PrunableLayer) and layer.mass is not None for layer in layers)


class Fallback:
    """Another attention backend of one decoder's, until it is removed; a warning says so, once a process."""

    def __init__(self, text: PreTrainedModel, backend: str) -> None:
        self._config: Any = text.config
        self._before = backend_of(text)
        warnings.warn(
            f"the attention backend {self._before!r} cannot carry attention mass: the session runs under {backend!r}",
            TokenPruneWarning,
            stacklevel=2,  # one place for all sessions, so that it is said once
        )
        self._config._attn_implementation = backend

    def remove(self) -> None:
        self._config._attn_implementation = self._before


def carries_mass(text: PreTrainedModel) -> bool:
    """Whether the decoder's attention backend adds a mask of numbers to the logits."""
    return backend_of(text) in CARRIERS


def require_mass_backend(text: PreTrainedModel) -> None:
    """Raise unless the decoder's attention backend can carry the mass.

    Raises:
        UnsupportedModeError: it would drop it in silence, or fail.
    """
    if not carries_mass(text):
        raise UnsupportedModeError(
            f"the attention backend {backend_of(text)!r} cannot carry attention mass; use {', '.join(CARRIERS)}, "
            'attach(..., fallback="sdpa"), or a pipeline with mass=None'
        )


class MassBias:
    """What one decoder's attention adds during the forward that runs now.

    Its hooks stand on the attention modules themselves, the innermost place: there the mask is what attention will
    really get, whoever has swapped it on the way.
    """

    def __init__(self, text: PreTrainedModel) -> None:
        self.text = text
        self.cache: DynamicCache | None = None
        self.running: Tensor | None = None
        self._active = False
        self._made: dict[tuple[int, ...], tuple[object, ...]] = {}
        self._hooks: list[Removable] = []

    def remove(self) -> None:
        """Take the hooks off."""
        self.end()
        while self._hooks:
            self._hooks.pop().remove()

    def begin(self, cache: object) -> None:
        """A forward begins with this cache (None: none)."""
        self.cache = cache if isinstance(cache, DynamicCache) else None
        self.running = None
        self._made.clear()
        self._active = False
        if holds_mass(cache):
            self._activate()

    def run_on(self, running: Tensor | None) -> None:
        """From now on the running batch has mass ``(B, S)``; None: one each."""
        self.running = running
        if running is not None:
            self._activate()

    def end(self) -> None:
        """The forward is over; nothing of it may reach the next."""
        self.cache = self.running = None
        self._active = False
        self._made.clear()

    def _activate(self) -> None:
        """From now on this forward's attention is changed; the hooks are put on when first needed, and stay."""
        require_mass_backend(self.text)
        self._active = True
        if self._hooks:
            return
        for index, layer in enumerate(self.text.get_submodule("layers").children()):
            attention = getattr(layer, "self_attn", None)
            if attention is None and kind_of(self.text, index) == LINEAR:
                continue
            if not isinstance(attention, nn.Module):
                raise UnsupportedModeError(
                    f"layer {index} of {type(self.text).__name__} has no self_attn to carry mass"
                )
            self._hooks.append(attention.register_forward_pre_hook(self._before(index), with_kwargs=True))

    def _before(self, index: int) -> Any:
        def compose(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if not self._active:
                return None
            hidden = args[0] if args else kwargs["hidden_states"]
            masses = self._masses(index, hidden)
            if masses is None:
                return None
            return args, {**kwargs, **self._composed(module, hidden, masses, kwargs.get("attention_mask"))}

        return compose

    def _masses(self, index: int, hidden: Tensor) -> Tensor | None:
        """``(B, L)`` mass of every key this layer will see: those it has stored, then the running ones."""
        layer = self.cache.layers[index] if self.cache is not None and index < len(self.cache.layers) else None
        stored = layer if isinstance(layer, PrunableLayer) and layer.stored else None
        mass = None if stored is None else stored.mass
        if mass is None and self.running is None:
            return None
        count = 0 if stored is None else stored.stored
        key = (1, id(mass), count, id(self.running), hidden.shape[1])
        if key not in self._made:
            held = None if stored is None else stored.slot_mass()
            earlier = hidden.new_ones(len(hidden), count, dtype=torch.float32) if held is None else held
            now = hidden.new_ones(hidden.shape[:2], dtype=torch.float32) if self.running is None else self.running
            # In the order of the keys that attention will see: what the layer has stored, then the running batch.
            masses = torch.cat([earlier.to(hidden.device), now.to(hidden.device)], dim=1)
            self._made[key] = (masses, mass, self.running)  # what an id stands for must stay alive
        return self._made[key][0]  # type: ignore[return-value]

    def _composed(self, module: nn.Module, hidden: Tensor, masses: Tensor, mask: Any) -> dict[str, Any]:
        key = (2, id(masses), id(mask))
        if key not in self._made:
            # exp(x + log m) = m exp(x): in the softmax a key counts as often as it stands for tokens.
            bias = masses.log().to(hidden.dtype)[:, None, None, :]  # (B, 1, 1, L)
            if backend_of(self.text) == "flex_attention":  # expanded, for its kernel reads every head and query
                heads = int(getattr(module.config, "num_attention_heads"))  # noqa: B009
                shape = (len(bias), heads, hidden.shape[1], bias.shape[-1])
                made: dict[str, Any] = {"position_bias": bias.expand(shape)}
            else:
                made = {"attention_mask": with_bias(bias, mask, hidden.shape[1])}
            self._made[key] = (made, masses, mask)
        return self._made[key][0]  # type: ignore[return-value]
