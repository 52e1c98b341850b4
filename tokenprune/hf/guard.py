# SPDX-License-Identifier: Apache-2.0
"""Refusing, before anything runs, what cannot be right once tokens are gone.

A forward cannot recognise some modes (a later chunk of a prompt looks like a second turn, drafted tokens look like
text), so the session also stands in front of ``generate``, the only place that sees what the caller has asked for.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.configuration_utils import GenerationMode

from tokenprune.adapter import Removable
from tokenprune.errors import UnsupportedCacheError, UnsupportedModeError
from tokenprune.hf.cache import check_prunable
from tokenprune.hf.release import caches_of_call, given_cache, with_cache
from tokenprune.runtime.carrier import Call, PrefillCarrier

CONTINUOUS_BATCHING = ("generate_batch", "init_continuous_batching", "continuous_batching_context_manager")
DECODING_MODES = (
    GenerationMode.GREEDY_SEARCH,
    GenerationMode.SAMPLE,
    GenerationMode.BEAM_SEARCH,
    GenerationMode.BEAM_SAMPLE,
)
CACHES = (None, "dynamic", "offloaded", "hybrid")  # the library reads "hybrid", an old default, as None
VISUAL_INPUTS = ("pixel_values", "pixel_values_videos", "mm_encoder_outputs")


class InFront:
    """An instance attribute that hides a method of the model until it is removed."""

    def __init__(self, model: PreTrainedModel, name: str, value: Callable[..., Any]) -> None:
        self._attributes = model.__dict__
        self._name = name
        self._previous = [model.__dict__[name]] if name in model.__dict__ else []
        model.__dict__[name] = value

    def remove(self) -> None:
        if self._previous:
            self._attributes[self._name] = self._previous[0]
        else:
            self._attributes.pop(self._name, None)


def guard_generate(model: PreTrainedModel, carrier: PrefillCarrier) -> Sequence[Removable]:
    """Stand in front of ``generate``: it works as before, except that modes that cannot be pruned are refused."""
    generate: Callable[..., Any] = getattr(model, "generate")  # noqa: B009 - its type is hidden
    signature = inspect.signature(generate)
    acts = len(carrier.pipeline) > 0

    @functools.wraps(generate)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        carrier.entrance.asked = True
        call = _read_call(model, _named(signature, args, kwargs), acts=acts)
        cache = given_cache(model, kwargs)
        named = kwargs if cache is None else with_cache(model, kwargs, cache)
        with carrier.generating(call):
            return generate(*args, **named)

    guards = [InFront(model, "generate", guarded)]
    if acts:
        guards += [InFront(model, name, _refusing(name)) for name in CONTINUOUS_BATCHING if hasattr(model, name)]
    return guards


def refuse_forward(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Refuse what a forward of the model can ask for that has no meaning once tokens are gone."""
    if is_compiling() or getattr(module, "_compiled_call_impl", None) is not None:
        raise UnsupportedModeError("the model is compiled with torch.compile; use the uncompiled model")
    if getattr(module, "_is_replica", False):
        raise UnsupportedModeError("nn.DataParallel runs copies of the model in threads; use one model per process")
    # generate names every argument, with each new token: only calls that do not are worth reading the signature for.
    _refuse_arguments(_named(inspect.signature(module.forward), args, kwargs) if args else kwargs)


def refuse_training(module: nn.Module) -> None:
    """Refuse a forward of a model in training mode that records gradients."""
    if module.training and torch.is_grad_enabled():
        raise UnsupportedModeError("pruning is for inference: call model.eval() or use torch.no_grad()")


def is_compiling() -> bool:
    """Whether ``torch.compile`` is tracing, or runs what it could not trace."""
    return torch.compiler.is_compiling() or _frame_callback()() is not None


@functools.cache
def _frame_callback() -> Callable[[], Any]:
    """Tells what dynamo does with Python frames now; private to torch, so a torch without it is no reason to fail."""
    try:
        from torch._C._dynamo.eval_frame import get_eval_frame_callback  # pyright: ignore
    except ImportError:
        return lambda: None
    return get_eval_frame_callback


def refuse_modules(model: nn.Module) -> None:
    """Refuse a model that is compiled, or split over processes inside its layers."""
    if any(getattr(module, "_compiled_call_impl", None) is not None for module in model.modules()):
        raise UnsupportedModeError("the model is compiled with torch.compile; use the uncompiled model")
    processes = getattr(model, "tp_size", None)
    if processes is not None and processes > 1:
        raise UnsupportedModeError("tensor parallelism leaves each process some heads only, so scores would differ")


def _refusing(name: str) -> Callable[..., Any]:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise UnsupportedModeError(f"{name} (continuous batching) cannot be combined with pruning; detach the session")

    return refuse


def _read_call(model: PreTrainedModel, arguments: dict[str, Any], *, acts: bool) -> Call:
    config = _effective_config(model, arguments)
    if acts:
        refuse_modules(model)
        _refuse_caches(config, arguments)
        _refuse_modes(config, arguments)
        _refuse_arguments(arguments)
    ids = arguments.get("input_ids")
    ids = arguments.get("inputs") if ids is None else ids
    passed = ids.shape[1] if isinstance(ids, torch.Tensor) and ids.ndim == 2 else None
    return Call(expanded=max(config.num_beams or 1, config.num_return_sequences or 1), passed=passed)


def _named(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Every argument by its name; what the signature does not know is left to the call itself to complain about."""
    names = [p.name for p in signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    return {**dict(zip(names, args)), **kwargs}


def _effective_config(model: PreTrainedModel, arguments: dict[str, Any]) -> GenerationConfig:
    """The settings that will be in force: keyword arguments over the given ones, over what those leave to the model."""
    given = arguments.get("generation_config")
    config = copy.deepcopy(given) if isinstance(given, GenerationConfig) else GenerationConfig()
    for name, value in model.generation_config.to_dict().items():
        if getattr(config, name, None) is None:
            setattr(config, name, value)
    for name, value in arguments.items():
        if hasattr(config, name):
            setattr(config, name, value)
    return config


def _refuse_caches(config: GenerationConfig, arguments: dict[str, Any]) -> None:
    if config.cache_implementation not in CACHES:
        raise UnsupportedCacheError(
            f"cache_implementation={config.cache_implementation!r} cannot be pruned; use 'dynamic' or 'offloaded'"
        )
    for cache in caches_of_call(arguments):
        check_prunable(cache)


def _refuse_modes(config: GenerationConfig, arguments: dict[str, Any]) -> None:
    refused = {
        "assistant_model (assisted decoding)": arguments.get("assistant_model"),
        "prompt_lookup_num_tokens (prompt-lookup decoding)": getattr(config, "prompt_lookup_num_tokens", None),
        "assistant_early_exit (assisted decoding)": getattr(config, "assistant_early_exit", None),
        "use_mtp (multi-token prediction)": getattr(config, "use_mtp", None),
        "prefill_chunk_size (chunked prefill)": getattr(config, "prefill_chunk_size", None),
        "token_healing": getattr(config, "token_healing", None),
        "custom_generate": arguments.get("custom_generate"),
    }
    for name, value in refused.items():
        if value is not None and value is not False:
            raise UnsupportedModeError(f"{name} cannot be combined with pruning; leave it out or detach the session")
    mode = config.get_generation_mode(arguments.get("assistant_model"))
    if mode not in DECODING_MODES:
        raise UnsupportedModeError(
            f"{mode.value} cannot be combined with pruning; use greedy or beam search, with or without sampling"
        )


def _refuse_arguments(arguments: dict[str, Any]) -> None:
    if arguments.get("labels") is not None:
        raise UnsupportedModeError("labels cannot be combined with pruning: the logits no longer match them")
    if isinstance(arguments.get("logits_to_keep"), torch.Tensor):
        raise UnsupportedModeError("logits_to_keep must be an integer: its tensor form names columns that may be gone")
    if arguments.get("inputs_embeds") is not None and any(arguments.get(name) is not None for name in VISUAL_INPUTS):
        raise UnsupportedModeError("inputs_embeds beside visual inputs cannot be pruned; pass input_ids")
