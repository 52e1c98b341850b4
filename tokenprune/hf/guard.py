# SPDX-License-Identifier: Apache-2.0
"""Refusing, before anything runs, what cannot be right once tokens are gone.

A forward cannot recognise some modes (a later chunk of a prompt looks like a second turn, drafted tokens look like
text), so the session also stands in front of ``generate``, the only place that sees what the caller has asked for.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedModel
from transformers.generation.configuration_utils import GenerationMode

from tokenprune.adapter import Removable
from tokenprune.errors import UnsupportedCacheError, UnsupportedModeError
from tokenprune.hf.cache import check_prunable
from tokenprune.hf.compiled import refuse_compiled, refuse_compiled_around
from tokenprune.hf.in_front import InFront
from tokenprune.hf.mass import holds_mass, require_mass_backend
from tokenprune.hf.net import VISUAL_INPUTS, Net
from tokenprune.hf.release import caches_of_call, given_cache, with_cache
from tokenprune.runtime.active import ActivePipeline, Call

CONTINUOUS_BATCHING = ("generate_batch", "init_continuous_batching", "continuous_batching_context_manager")
DECODING_MODES = (
    GenerationMode.GREEDY_SEARCH,
    GenerationMode.SAMPLE,
    GenerationMode.BEAM_SEARCH,
    GenerationMode.BEAM_SAMPLE,
)
CACHES = (None, "dynamic", "offloaded", "hybrid")  # the library reads "hybrid", an old default, as None


def guard_generate(
    model: PreTrainedModel, text: PreTrainedModel, active: ActivePipeline, net: Net, refused: Mapping[str, str]
) -> Sequence[Removable]:
    """Stand in front of ``generate``: it works as before, except that modes that cannot be pruned are refused."""
    generate: Callable[..., Any] = getattr(model, "generate")  # noqa: B009 - its type is hidden
    signature = inspect.signature(generate)
    acts = len(active.pipeline) > 0

    @functools.wraps(generate)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        active.entrance.asked = True
        if acts:
            refuse_modules(model, text)
            _refuse_named(_named(signature, args, kwargs), refused)
        call = _read_call(model, _named(signature, args, kwargs), acts=acts)
        cache = given_cache(model, kwargs)
        if active.pipeline.mass is not None or holds_mass(cache):
            require_mass_backend(text)
        named = kwargs if cache is None else with_cache(model, kwargs, cache)
        with active.generating(call), net.under_generate(kwargs) if acts else nullcontext():
            return generate(*args, **named)

    guards = [InFront(model, "generate", guarded)]
    if acts:
        guards += [InFront(model, name, _refusing(name)) for name in CONTINUOUS_BATCHING if hasattr(model, name)]
    return guards


def refuse_forward(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], refused: Mapping[str, str]
) -> None:
    """Refuse what a forward of the model can ask for that has no meaning once tokens are gone."""
    refuse_compiled(module)
    if getattr(module, "_is_replica", False):
        raise UnsupportedModeError("nn.DataParallel runs copies of the model in threads; use one model per process")
    # generate names every argument, with each new token: only calls that do not are worth reading the signature for.
    named = _named(inspect.signature(module.forward), args, kwargs) if args else kwargs
    _refuse_arguments(named)
    _refuse_named(named, refused)


def refuse_training(module: nn.Module) -> None:
    """Refuse a forward of a model in training mode that records gradients."""
    if module.training and torch.is_grad_enabled():
        raise UnsupportedModeError("pruning is for inference: call model.eval() or use torch.no_grad()")


def refuse_dropped_cache(text: nn.Module, stored: int, tokens: int) -> None:
    """Name the cause where a layer was given a cache and left it as it was.

    Whether gradient checkpointing does that outside training too depends on the library's release.

    Args:
        text: the decoder.
        stored: tokens in the cache of a layer that has run.
        tokens: tokens that should be there.
    """
    if stored != tokens and text.training and any(getattr(m, "gradient_checkpointing", False) for m in text.modules()):
        raise UnsupportedModeError(
            "gradient checkpointing in training mode keeps the layers from using their cache: call model.eval()"
        )


def refuse_modules(model: nn.Module, text: nn.Module) -> None:
    """Refuse a model that is compiled, or split over processes inside its layers."""
    refuse_compiled_around(model, text)
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


def _refuse_named(arguments: dict[str, Any], refused: Mapping[str, str]) -> None:
    """What this family's models cannot be asked for."""
    for name, reason in refused.items():
        if arguments.get(name) is not None and arguments[name] is not False:
            raise UnsupportedModeError(f"{name} cannot be combined with pruning: {reason}")


def _refuse_arguments(arguments: dict[str, Any]) -> None:
    if arguments.get("labels") is not None:
        raise UnsupportedModeError("labels cannot be combined with pruning: the logits no longer match them")
    if isinstance(arguments.get("logits_to_keep"), torch.Tensor):
        raise UnsupportedModeError("logits_to_keep must be an integer: its tensor form names columns that may be gone")
    if arguments.get("inputs_embeds") is not None and any(arguments.get(name) is not None for name in VISUAL_INPUTS):
        raise UnsupportedModeError("inputs_embeds beside visual inputs cannot be pruned; pass input_ids")
