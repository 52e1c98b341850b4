# SPDX-License-Identifier: Apache-2.0
"""A dynamic KV cache whose layers can be cut."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import DynamicCache, DynamicLayer, LinearAttentionLayer

from tokenprune.errors import UnsupportedCacheError, UnsupportedModeError
from tokenprune.hf.layer import Gate, PrunableLayer


class PrunableDynamicCache(DynamicCache):
    """A :class:`~transformers.DynamicCache` whose layers can be cut (:class:`tokenprune.PrunableCache`).

    No cache has to be passed to ``generate`` while a session is attached; this one can be, and can be kept for a
    second turn. A model with linear-attention layers, whose caches keep a state and are never cut, needs
    ``PrunableDynamicCache(config)``.

    >>> cache = PrunableDynamicCache()
    >>> keys, values = cache.update(torch.randn(1, 2, 5, 4), torch.randn(1, 2, 5, 4), 0)
    >>> cache.cut(0, torch.tensor([[0, 4]]), torch.ones(1, 2, dtype=torch.bool))
    >>> cache.logical_length, cache.stored_length
    (5, 2)

    Args:
        config: the model's configuration, as :class:`~transformers.DynamicCache` takes it.

    Raises:
        UnsupportedCacheError: the model has layers whose cache cannot be cut.
    """

    def __init__(self, config: PreTrainedConfig | None = None) -> None:
        super().__init__(config=config)
        make_prunable(self)

    def cut(self, layer: int, index: Tensor, mask: Tensor) -> None:
        """Keep, in one layer, the stored slots at ``index`` ``(B, K)``; ``mask`` is False where a slot is padding."""
        make_prunable(self).cut(layer, index, mask)

    @property
    def logical_length(self) -> int:
        """Tokens the sequence has had, the removed ones included."""
        return self.get_seq_length()

    @property
    def stored_length(self) -> int:
        """Slots each layer stores, padding included."""
        return make_prunable(self).stored_length


PruneVidDynamicCache = PrunableDynamicCache
"""The name of 0.1."""


def keeps_state(layer: object) -> bool:
    """Whether a cache layer is that of a linear-attention layer: it keeps a state and no token, so nothing is cut."""
    return type(layer) is LinearAttentionLayer


@dataclass(eq=False)
class PrunableHandle:
    """Cuts the layers of a dynamic cache in place; made by :func:`make_prunable`."""

    cache: DynamicCache
    gate: Gate

    def layer(self, index: int) -> PrunableLayer:
        """The prunable layer at ``index``."""
        layer = self.cache.layers[index]
        if not isinstance(layer, PrunableLayer):
            raise UnsupportedCacheError(f"layer {index} of the cache is a {type(layer).__name__}, not prunable")
        layer.gate = self.gate
        return layer

    def cut(self, layer: int, index: Tensor, mask: Tensor | None) -> None:
        """Keep, in one layer, the stored slots at ``index`` ``(B, K)``; ``mask`` is False where a slot is padding."""
        if mask is not None and bool(mask.all()):
            mask = None
        self.layer(layer).cut(index, mask)

    @property
    def logical_length(self) -> int:
        return self.cache.get_seq_length()

    @property
    def storing(self) -> list[int]:
        """Which layers store tokens: all but those that keep a state."""
        return [index for index, layer in enumerate(self.cache.layers) if not keeps_state(layer)]

    def stores(self, index: int) -> bool:
        """Whether the layer at ``index``, which may not be there yet, stores tokens."""
        return index >= len(self.cache.layers) or not keeps_state(self.cache.layers[index])

    @property
    def first(self) -> PrunableLayer | None:
        """The first layer that stores tokens; after a prefill they all store the same."""
        return next((self.layer(index) for index in self.storing), None)

    @property
    def stored_length(self) -> int:
        return 0 if self.first is None else self.first.stored

    def stored(self, index: int) -> int:
        """Slots that the layer at ``index`` stores; a layer that nothing was put into may not be there yet."""
        return self.layer(index).stored if index < len(self.cache.layers) else 0

    def stored_mask(self, given: Tensor | None, new: int) -> Tensor | None:
        """The 2-D mask ``(B, logical + new)`` whose last columns describe the stored slots and the new tokens.

        Args:
            given: the caller's mask over the logical sequence and the new tokens, or None.
            new: number of new tokens.
        """
        layer = self.first
        if layer is None or (layer.valid is None and (given is None or layer.removed == 0)):
            return given
        if given is not None and (given.ndim != 2 or given.shape[1] != layer.get_seq_length() + new):
            raise UnsupportedModeError(
                f"with a pruned cache attention_mask must be 2-D and cover the {layer.get_seq_length()} tokens so far "
                f"and the {new} new ones, got shape {tuple(given.shape)}"
            )
        columns, valid = layer.slot_columns(), layer.slot_valid()
        # The caller's mask speaks of logical columns, attention of slots; a padding slot may point anywhere.
        if given is None:
            seen = torch.ones_like(columns, dtype=torch.bool)
            fresh = seen.new_ones(len(columns), new)
        else:
            seen = given.to(columns.device).bool().gather(1, columns.clamp(min=0))
            if new > 1:  # a turn begins; its decoding goes on with the same mask
                self._require_seen_alike(given, seen)
            fresh = given[:, -new:].to(columns.device).bool()
        if valid is not None:
            seen = seen & valid.to(seen.device)
        # The library reads it from the offset on that `get_mask_sizes` gives; what stands before that is for removed
        # tokens, so that the mask is as long as the sequence.
        return torch.cat([seen.new_ones(len(seen), layer.removed), seen, fresh], dim=1)

    def _require_seen_alike(self, given: Tensor, seen: Tensor) -> None:
        """One mask serves all layers and heads: what it hides must stand at the same slots of them all."""
        for layer in self.cache.layers:
            if isinstance(layer, PrunableLayer) and layer.held is not None:
                columns, valid = layer.slot_columns_by_head(), layer.slot_valid()
                mine = given.to(columns.device).bool()[:, None].expand(-1, columns.shape[1], -1).gather(2, columns)
                differs = mine != seen[:, None].to(columns.device)
                if bool((differs if valid is None else differs & valid[:, None]).any()):
                    raise UnsupportedModeError(
                        "after a press attention_mask cannot hide what layers and heads store at different places"
                    )


def is_prunable(cache: object) -> bool:
    """Whether every layer of ``cache`` (there may be none yet) can be cut."""
    if not isinstance(cache, DynamicCache):
        return False
    storing = [layer for layer in cache.layers if not keeps_state(layer)]
    return all(isinstance(layer, PrunableLayer) for layer in storing) and (
        bool(storing) or cache.layer_class_to_replicate is PrunableLayer
    )


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


def is_plain(cache: object) -> bool:
    """Whether this is the library's own dynamic cache, none of whose layers has been made prunable."""
    return type(cache) is DynamicCache and all(type(each) is DynamicLayer or keeps_state(each) for each in cache.layers)


def check_prunable(cache: object) -> DynamicCache:
    """Return the cache if it is an empty or already prunable dynamic cache; it is not changed.

    Raises:
        UnsupportedCacheError: another kind of cache or layer, or one that already holds tokens.
    """
    if type(cache) not in (DynamicCache, PrunableDynamicCache) or not isinstance(cache, DynamicCache):
        raise UnsupportedCacheError(
            f"a {type(cache).__name__} cannot be pruned; pass no cache, a DynamicCache or a PrunableDynamicCache"
        )
    for index, layer in enumerate(cache.layers):
        if isinstance(layer, PrunableLayer) or keeps_state(layer):
            continue
        if type(layer) is not DynamicLayer:
            raise UnsupportedCacheError(f"layer {index} of the cache is a {type(layer).__name__}, which cannot be cut")
        if layer.get_seq_length() > 0:
            raise UnsupportedCacheError(
                f"the cache already holds {layer.get_seq_length()} tokens of a prompt that ran without a session; "
                "start with an empty cache"
            )
    return cache


def make_prunable(cache: object) -> PrunableHandle:
    """Make the layers of an empty or already prunable dynamic cache prunable, in place.

    >>> make_prunable(DynamicCache()).stored_length
    0

    Raises:
        UnsupportedCacheError: another kind of cache or layer, or one that already holds tokens; it stays as it was.
    """
    cache = check_prunable(cache)
    kept = [each if isinstance(each, PrunableLayer) or keeps_state(each) else PrunableLayer() for each in cache.layers]
    layers = [layer for layer in kept if isinstance(layer, PrunableLayer)]
    gate = next((layer.gate for layer in layers if layer.gate is not None), None) or Gate()
    for layer in layers:
        layer.gate = gate
    cache.layers[:] = kept
    if cache.layer_class_to_replicate is not None:
        cache.layer_class_to_replicate = PrunableLayer
    return PrunableHandle(cache, gate)
