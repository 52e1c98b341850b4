# SPDX-License-Identifier: Apache-2.0
"""Standing in front of ``generate``: the only place that sees which mode the caller has asked for."""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from tokenprune.errors import UnsupportedCacheError, UnsupportedModeError
from tokenprune.hf.cache import check_prunable
from tokenprune.runtime.carrier import Call, PrefillCarrier


class GenerateGuard:
    """An instance attribute in front of ``model.generate``, removed with the session."""

    def __init__(self, model: PreTrainedModel, previous: Any) -> None:
        self._model = model
        self._previous = previous

    @classmethod
    def install(cls, model: PreTrainedModel, carrier: PrefillCarrier) -> GenerateGuard:
        """Put the guard on; ``generate`` works as before, except that modes it cannot prune rightly are refused."""
        previous = model.__dict__.get("generate")
        generate = model.generate

        @functools.wraps(generate)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            call = _read_call(model, args, kwargs, acts=len(carrier.pipeline) > 0)
            with carrier.generating(call):
                return generate(*args, **kwargs)

        model.__dict__["generate"] = guarded
        return cls(model, previous)

    def remove(self) -> None:
        if self._previous is None:
            self._model.__dict__.pop("generate", None)
        else:
            self._model.__dict__["generate"] = self._previous


def refuse_forward(kwargs: dict[str, Any], *, training: bool) -> None:
    """Refuse what a forward can ask for that has no meaning once tokens are gone."""
    if kwargs.get("labels") is not None:
        raise UnsupportedModeError("labels cannot be combined with pruning: the logits no longer match them")
    if isinstance(kwargs.get("logits_to_keep"), torch.Tensor):
        raise UnsupportedModeError("logits_to_keep must be an integer: its tensor form names columns that may be gone")
    if training and torch.is_grad_enabled():
        raise UnsupportedModeError("pruning is for inference: call model.eval() or use torch.no_grad()")


def _read_call(model: PreTrainedModel, args: tuple[Any, ...], kwargs: dict[str, Any], *, acts: bool) -> Call:
    given = kwargs.get("generation_config", args[1] if len(args) > 1 else None)
    config = _effective_config(model, given, kwargs)
    if acts:
        _refuse_modes(config, kwargs)
    ids = kwargs.get("input_ids", kwargs.get("inputs", args[0] if args else None))
    passed = ids.shape[1] if isinstance(ids, torch.Tensor) and ids.ndim == 2 else None
    return Call(expanded=max(config.num_beams or 1, config.num_return_sequences or 1), passed=passed)


def _effective_config(model: PreTrainedModel, given: GenerationConfig | None, kwargs: dict[str, Any]) -> GenerationConfig:
    """The generation settings that will be in force: the model's, under the given ones, under keyword arguments."""
    merged = copy.deepcopy(model.generation_config)
    for source in (given.to_diff_dict() if given is not None else {}, kwargs):
        for name, value in source.items():
            if hasattr(merged, name):
                setattr(merged, name, value)
    return merged


def _refuse_modes(config: GenerationConfig, kwargs: dict[str, Any]) -> None:
    if config.cache_implementation not in (None, "dynamic", "dynamic_full", "offloaded"):
        raise UnsupportedCacheError(
            f"cache_implementation={config.cache_implementation!r} cannot be pruned; use 'dynamic' or 'offloaded'"
        )
    cache = kwargs.get("past_key_values")
    if cache is not None:
        check_prunable(cache)
    refused = {
        "assistant_model (assisted decoding)": kwargs.get("assistant_model"),
        "prompt_lookup_num_tokens (prompt-lookup decoding)": config.prompt_lookup_num_tokens,
        "assistant_early_exit (assisted decoding)": getattr(config, "assistant_early_exit", None),
        "use_mtp (multi-token prediction)": getattr(config, "use_mtp", None),
        "prefill_chunk_size (chunked prefill)": config.prefill_chunk_size,
        "custom_generate": kwargs.get("custom_generate"),
        "labels": kwargs.get("labels"),
    }
    for name, value in refused.items():
        if value:
            raise UnsupportedModeError(f"{name} cannot be combined with pruning; leave it out or detach the session")
    visual = [n for n in ("pixel_values", "pixel_values_videos", "mm_encoder_outputs") if kwargs.get(n) is not None]
    if kwargs.get("inputs_embeds") is not None and visual:
        raise UnsupportedModeError("inputs_embeds beside visual inputs cannot be pruned; pass input_ids")
