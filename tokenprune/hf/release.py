# SPDX-License-Identifier: Apache-2.0
"""What the installed transformers calls things: asked of its signatures, never of its version number.

This is the only module that knows the names. What it cannot find is refused before a model is touched.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.masking_utils import create_causal_mask, create_recurrent_attention_mask

from tokenprune.errors import UnsupportedReleaseError

TESTED = ("5.17.0", "5.20.2", "5.23.0", "5.24.0")
"""Releases on which the whole adapter suite has passed; docs/releases.md has the same list."""

CACHE_NAMES = ("cache", "past_key_values")
"""What releases call the argument and the output that hold the KV cache, newest first."""

DECODER_ARGUMENTS = ("inputs_embeds", "position_ids", "attention_mask", "use_cache")
FULL, LINEAR = "full_attention", "linear_attention"
LAYER_ARGUMENTS = ("attention_mask", "position_ids", "position_embeddings")
MASK_ARGUMENTS = ("config", "inputs_embeds", "attention_mask", "position_ids", "layer_idx")


def unknown_release(problem: str) -> UnsupportedReleaseError:
    """The error for a library that does what this release of tokenprune does not know."""
    return UnsupportedReleaseError(
        f"{problem}; transformers {transformers.__version__} does what this release of tokenprune does not know "
        f"(tested: {', '.join(TESTED)})"
    )


def cache_name(module: nn.Module) -> str:
    """What the forward of ``module`` calls its KV cache.

    The class is asked, because wrappers hide the forward of an instance.

    Raises:
        UnsupportedReleaseError: it takes no cache under a known name.
    """
    return _cache_name(type(module).forward, type(module).__name__)


def given_cache(module: nn.Module, arguments: Mapping[str, Any]) -> Any:
    """The cache among the keyword arguments of ``module``'s forward, also under a name that it only still accepts."""
    return next((arguments[n] for n in _accepted(cache_name(module)) if arguments.get(n) is not None), None)


def with_cache(module: nn.Module, arguments: Mapping[str, Any], cache: object) -> dict[str, Any]:
    """The same arguments with this cache, under ``module``'s own name alone: a deprecated name is never handed on."""
    own = cache_name(module)
    rest = {name: value for name, value in arguments.items() if name not in _accepted(own)}
    return {**rest, own: cache}


def caches_of_call(arguments: Mapping[str, Any]) -> list[Any]:
    """Whatever a call of ``generate`` gives as a cache, under any name."""
    return [arguments[name] for name in CACHE_NAMES if arguments.get(name) is not None]


def cache_of(output: object) -> Any:
    """The KV cache in the output of a forward or of ``generate``; None where it has none."""
    return next((getattr(output, name) for name in CACHE_NAMES if hasattr(output, name)), None)


def causal_mask(text: PreTrainedModel, hidden: Tensor, mask: Tensor | None, cache: object, layer: int) -> Any:
    """The causal mask of decoder layer ``layer``, in the form that the model's attention backend wants.

    Args:
        text: the decoder.
        hidden: ``(B, L, D)`` what the layer is given.
        mask: ``(B, S)`` padding mask over stored and new tokens; None: no padding.
        cache: the KV cache, or None.
        layer: its index; without it the library would read the lengths of a layer that may have been cut.
    """
    named: dict[str, Any] = {_cache_name(create_causal_mask, "create_causal_mask"): cache}
    # No positions: gaps in them would be read as a batch of packed sequences.
    return create_causal_mask(
        config=text.config, inputs_embeds=hidden, attention_mask=mask, position_ids=None, layer_idx=layer, **named
    )


def kind_of(text: PreTrainedModel, layer: int) -> str:
    """What kind of attention a decoder layer has, in the library's words."""
    kinds: Any = getattr(text.config, "layer_types", None)
    return str(kinds[layer]) if kinds else FULL


def has_states(text: PreTrainedModel) -> bool:
    """Whether some of the decoder's layers are of linear attention, and keep a state."""
    layers = text.get_submodule("layers").children()
    return any(kind_of(text, index) == LINEAR for index, _ in enumerate(layers))


def masks_after(
    text: PreTrainedModel, hidden: Tensor, mask: Tensor | None, cache: object, layer: int
) -> dict[str, Any]:
    """The masks of decoder layers from ``layer`` on, by :func:`kind_of` them; arguments as :func:`causal_mask`'s.

    The causal one is made for the first layer from there on that stores tokens: it has not run yet, and says how long
    the keys will be. Linear-attention layers are told where padding stands.
    """
    layers = range(layer, len(text.get_submodule("layers")))  # type: ignore[arg-type]
    masks: dict[str, Any] = {}
    for index in layers:
        kind = kind_of(text, index)
        if kind not in masks and kind == LINEAR:
            named: dict[str, Any] = {_cache_name(create_recurrent_attention_mask, "its masks"): cache}
            masks[kind] = create_recurrent_attention_mask(
                config=text.config, inputs_embeds=hidden, attention_mask=mask, **named
            )
        elif kind not in masks:
            masks[kind] = causal_mask(text, hidden, mask, cache, index)
    return masks


def require_known(text: PreTrainedModel) -> None:
    """Check that the decoder, its layers and the library's mask maker take what a session hands them.

    Raises:
        UnsupportedReleaseError: one of them does not.
    """
    layers = list(text.get_submodule("layers").children())
    _require(type(text).forward, type(text).__name__, DECODER_ARGUMENTS)
    for kind in {type(layer) for layer in layers}:
        _require(kind.forward, kind.__name__, LAYER_ARGUMENTS)
    _require(create_causal_mask, "create_causal_mask", MASK_ARGUMENTS)


def require_stored(text: PreTrainedModel, layer: int, stored: int, tokens: int) -> None:
    """Check that a layer has put exactly its tokens into the cache that is about to be cut.

    Args:
        text: the decoder.
        layer: index of a layer that has run.
        stored: slots that its cache layer holds now.
        tokens: slots that it should hold.

    Raises:
        UnsupportedReleaseError: it stored another number, so cutting would be wrong.
    """
    if stored != tokens:
        raise unknown_release(
            f"layer {layer} of {type(text).__name__} left {stored} tokens, not {tokens}, in the cache that it was given"
        )


def _accepted(own: str) -> tuple[str, ...]:
    """The name itself and the older ones; a newer name means something else to a release that does not use it."""
    return CACHE_NAMES[CACHE_NAMES.index(own) :]


def _require(function: Callable[..., Any], owner: str, names: Iterable[str]) -> None:
    missing = sorted(set(names) - _parameters(function))
    if missing:
        raise unknown_release(f"{owner} takes no {', '.join(missing)}")
    _cache_name(function, owner)


def _cache_name(function: Callable[..., Any], owner: str) -> str:
    known = _parameters(function)
    for name in CACHE_NAMES:
        if name in known:
            return name
    raise unknown_release(f"{owner} takes no KV cache under a known name ({', '.join(CACHE_NAMES)})")


@lru_cache(maxsize=256)
def _parameters(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)
