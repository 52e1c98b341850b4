# SPDX-License-Identifier: Apache-2.0
"""A library that does what we do not know is refused by name; what it calls things is asked of it."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

import transformers
from hf.names import CACHE
from hf.prompts import Clip, prompt, shared_model
from hf.running import answers, counted, state_of
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import StaticCache

import tokenprune as tp
from tokenprune.hf import release

ONE = prompt([[5, Clip(3, 2, 3), 6]])
PADDED = prompt([[5, Clip(3, 2, 3), 6], [9, Clip(2, 2, 2), 3, Clip(2, 2, 3), 7]])
MERGE, SELECT = tp.STMerge(keep_ratio=0.7), tp.AttnPrune(layer=1, keep_ratio=0.5)
PIPELINES = {
    "stage 1": tp.Pipeline([MERGE]),
    "stage 2": tp.Pipeline([SELECT]),
    "both": tp.Pipeline([MERGE, SELECT]),
}
ACCEPTED = release.CACHE_NAMES[release.CACHE_NAMES.index(CACHE) :]
"""The installed library's own name and the older ones that it still takes."""


def replaced(function: Callable[..., Any], old: str, new: str) -> Callable[..., Any]:
    """A function that works as before but calls one of its arguments otherwise, as a later release might."""

    @functools.wraps(function)
    def renamed(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **{old if name == new else name: value for name, value in kwargs.items()})

    signature = inspect.signature(function)
    parameters = [p.replace(name=new) if p.name == old else p for p in signature.parameters.values()]
    renamed.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return renamed


def refused_at_attach(model: Any, names: str) -> None:
    """Attaching any pipeline is refused, says what is missing and both versions, and leaves nothing behind."""
    before = state_of(model)
    for pipeline in (*PIPELINES.values(), tp.Pipeline()):
        with pytest.raises(tp.UnsupportedReleaseError, match=names) as caught:
            tp.attach(model, pipeline)
        assert f"transformers {transformers.__version__} " in str(caught.value)
        assert all(version in str(caught.value) for version in release.TESTED)
    assert state_of(model) == before


@pytest.mark.parametrize("old", [CACHE, "inputs_embeds", "position_ids"])
def test_a_decoder_with_other_names_is_refused(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = shared_model()
    decoder = type(model.model.language_model)
    monkeypatch.setattr(decoder, "forward", replaced(decoder.forward, old, "renamed"))
    refused_at_attach(model, "Qwen2_5_VLTextModel takes no " + ("KV cache" if old == CACHE else old))


@pytest.mark.parametrize("old", [CACHE, "position_embeddings"])
def test_layers_with_other_names_are_refused(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = shared_model()
    layer = type(model.model.language_model.layers[0])
    monkeypatch.setattr(layer, "forward", replaced(layer.forward, old, "renamed"))
    refused_at_attach(model, "DecoderLayer takes no " + ("KV cache" if old == CACHE else old))


@pytest.mark.parametrize("old", [CACHE, "layer_idx"])
def test_a_mask_maker_with_other_names_is_refused(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "create_causal_mask", replaced(release.create_causal_mask, old, "renamed"))
    refused_at_attach(shared_model(), "create_causal_mask takes no " + ("KV cache" if old == CACHE else old))


@pytest.mark.parametrize("given", [ONE, PADDED], ids=["one row", "padded"])
@pytest.mark.parametrize("pipeline", PIPELINES.values(), ids=PIPELINES)
def test_a_decoder_that_leaves_our_cache_alone_is_found_out(
    pipeline: tp.Pipeline, given: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = shared_model()
    decoder = type(model.model.language_model)
    forward = decoder.forward

    @functools.wraps(forward)
    def with_its_own(self: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get(CACHE) is not None:
            kwargs[CACHE] = DynamicCache(config=self.config)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(decoder, "forward", with_its_own)
    before = state_of(model)
    with tp.attach(model, pipeline):
        with pytest.raises(tp.UnsupportedReleaseError, match=r"layer \d of Qwen2_5_VLTextModel left 0 tokens, not \d"):
            answers(model, given)
        assert len(answers(model, given, use_cache=False)[0]) == 4  # no cache, nothing to be stored
    assert state_of(model) == before


def test_a_layer_that_stores_something_else_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = tp.PrunableLayer
    update = layer.update

    def twice(self: Any, keys: Any, values: Any, *args: Any, **kwargs: Any) -> Any:
        return update(self, torch.cat([keys, keys], dim=2), torch.cat([values, values], dim=2), *args, **kwargs)

    monkeypatch.setattr(layer, "update", twice)
    with tp.attach(shared_model(), PIPELINES["stage 2"]) as session:
        with pytest.raises(tp.UnsupportedReleaseError, match="layer 0"):
            answers(shared_model(), ONE, attention_mask=None)
        assert session.report is None


@pytest.mark.parametrize("name", release.CACHE_NAMES)
def test_a_cache_that_cannot_be_cut_is_refused_under_any_name(name: str) -> None:
    model = shared_model()
    static = StaticCache(config=model.config.text_config, max_cache_len=64)
    with tp.attach(model, PIPELINES["both"]), counted(model) as calls, pytest.raises(tp.UnsupportedCacheError):
        answers(model, ONE, **{name: static})
    assert calls.count == 0


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_cache_is_taken_under_each_name_that_the_library_takes(name: str) -> None:
    model = shared_model()
    with tp.attach(model, PIPELINES["both"]):
        expected = answers(model, PADDED)
        given = tp.PrunableDynamicCache()
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)
            assert answers(model, PADDED, **{name: given}) == expected
            bare = DynamicCache()
            model.model.language_model(inputs_embeds=torch.randn(1, 4, 32), **{name: bare})
    assert given.stored_length < given.logical_length == PADDED.length + 3
    assert [layer.get_seq_length() for layer in bare.layers] == [4] * 4


def test_only_the_modules_own_name_is_handed_on() -> None:
    text = shared_model().model.language_model
    cache = DynamicCache()
    named = release.with_cache(text, {**dict.fromkeys(ACCEPTED, DynamicCache()), "use_cache": True}, cache)
    assert named == {"use_cache": True, CACHE: cache}
    assert release.given_cache(text, named) is cache
