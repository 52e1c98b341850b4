# SPDX-License-Identifier: Apache-2.0
"""What a decoder's forward is given: its cache, and what that holds already."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from tokenprune.errors import UnsupportedCacheError
from tokenprune.hf.cache import keeps_state
from tokenprune.hf.layer import PrunableLayer
from tokenprune.hf.release import given_cache, has_states, with_cache
from tokenprune.runtime.slots import Slots


def open_cache(text: PreTrainedModel, kwargs: dict[str, Any]) -> dict[str, Any]:
    """The same arguments with the cache the decoder would make itself, so that its layers can be made prunable.

    Raises:
        UnsupportedCacheError: a cache without layers, for a decoder some of whose layers keep a state.
    """
    use_cache = kwargs.get("use_cache")
    if use_cache is None:
        use_cache = getattr(text.config, "use_cache", True)
    cache = given_cache(text, kwargs)
    if cache is None and not use_cache:
        return dict(kwargs)
    if isinstance(cache, DynamicCache) and not cache.layers and has_states(text):
        name = type(cache).__name__
        raise UnsupportedCacheError(
            f"a {name} made without the model's config has no place for the states of linear attention; pass no cache, "
            f"or {name}(config=model.config)"
        )
    return with_cache(text, kwargs, DynamicCache(config=text.config) if cache is None else cache)


def earlier_slots(cache: Any, given: Tensor | None, past: int, batch: int) -> Slots | None:
    """What a cache of ``past`` logical tokens stores, its padding and the caller's mask taken together."""
    if past == 0 or cache is None:
        return None
    layer = next(layer for layer in cache.layers if not keeps_state(layer))
    if isinstance(layer, PrunableLayer):
        columns, valid, mass = layer.slot_columns(), layer.slot_valid(), layer.slot_mass()
    else:  # nothing has been cut: a slot is a column
        columns = torch.arange(past, device=layer.keys.device).expand(batch, -1)
        valid = mass = None
    if valid is None:
        valid = torch.ones_like(columns, dtype=torch.bool)
    if given is not None:  # of logical columns; earlier padding is padding still
        valid = valid & given.to(columns.device).bool().gather(1, columns.clamp(min=0))
    return Slots(columns, valid, valid.sum(1).tolist(), mass)
