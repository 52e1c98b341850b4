# SPDX-License-Identifier: Apache-2.0
"""What runs around a session's hooks is an error, never an unpruned answer."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from hf.prompts import Clip, prompt, shared_model
from hf.running import alone, answers, counted, kept, state_of
from qwen25vl.tiny import tiny_model

import tokenprune as tp

PIPE = tp.Pipeline([tp.STMerge(keep_ratio=0.7), tp.AttnPrune(layer=1, keep_ratio=0.5)])
RAGGED = prompt([[5, Clip(3, 2, 3), 6], [9, Clip(2, 2, 2), 3, Clip(2, 2, 3), 7]])
ONE = alone(RAGGED, 0)
TEXT = prompt([[7]])
COMPILED = ["", "model", "model.language_model", "model.language_model.layers.1"]


def compile_forward(module: Any) -> None:
    """What transformers' guides write."""
    module.forward = torch.compile(module.forward, backend="eager")


@pytest.mark.parametrize("name", COMPILED)
@pytest.mark.parametrize("pipeline", [PIPE, tp.Pipeline([])])
def test_a_compiled_forward_cannot_be_attached(name: str, pipeline: tp.Pipeline) -> None:
    model = tiny_model(layers=2)
    compile_forward(model.get_submodule(name))
    before = state_of(model)
    with pytest.raises(tp.UnsupportedModeError, match=r"compiled with torch\.compile"):
        tp.attach(model, pipeline)
    assert state_of(model) == before
    del model.get_submodule(name).forward
    with tp.attach(model, PIPE):
        answers(model, ONE)


@pytest.mark.parametrize("name", COMPILED)
def test_a_forward_compiled_while_attached(name: str) -> None:
    model = tiny_model(layers=2)
    with tp.attach(model, PIPE) as session:
        compile_forward(model.get_submodule(name))
        with counted(model) as calls:
            with pytest.raises(tp.UnsupportedModeError, match=r"compiled with torch\.compile"):
                answers(model, ONE)
            assert calls.count == 0
        if "layers" not in name:
            with pytest.raises(tp.UnsupportedModeError, match=r"compiled with torch\.compile"):
                model(**ONE.inputs())
        assert session.report is None
        del model.get_submodule(name).forward
        answers(model, ONE)
        assert len(session.reports) == 1


def test_a_compiled_forward_inside_wrappers() -> None:
    peft, accelerate = pytest.importorskip("peft"), pytest.importorskip("accelerate")
    model = tiny_model(layers=2)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"])).eval()
    for holder in (wrapped, model):
        compile_forward(holder)
        with pytest.raises(tp.UnsupportedModeError, match=r"compiled with torch\.compile"):
            tp.attach(wrapped, PIPE)
        del holder.forward
    compile_forward(model)
    accelerate.dispatch_model(model, {"": "cpu"}, force_hooks=True)  # hides the compiled forward behind its own
    with pytest.raises(tp.UnsupportedModeError, match=r"compiled with torch\.compile"):
        tp.attach(model, PIPE)


def test_a_compiled_vision_tower_works() -> None:
    model = tiny_model()
    with tp.attach(model, PIPE) as session:
        expected = answers(model, RAGGED), kept(session)
    compile_forward(model.model.visual)
    with tp.attach(model, PIPE) as session:
        assert (answers(model, RAGGED), kept(session)) == expected


def test_a_forward_kept_from_the_compiler_works() -> None:
    model = tiny_model(layers=2)
    with tp.attach(model, PIPE) as session:
        expected = answers(model, ONE), kept(session)
    model.forward = torch.compiler.disable(model.forward)
    with tp.attach(model, PIPE) as session:
        assert (answers(model, ONE), kept(session)) == expected


# --- the net ---------------------------------------------------------------------------------------------------------


def around(model: Any) -> Any:
    """A forward that runs a prefill, and nothing else, without the hooks of what is inside the model."""
    own = model.forward

    @functools.wraps(own)
    def forward(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("pixel_values_videos") is None and not kwargs.get("mm_encoder_outputs"):
            return own(*args, **kwargs)
        inside = (model.model, model.model.language_model)
        hooks = [dict(module._forward_pre_hooks) for module in inside]
        for module in inside:
            module._forward_pre_hooks.clear()
        try:
            return own(*args, **kwargs)
        finally:
            for module, its in zip(inside, hooks):
                module._forward_pre_hooks.update(its)

    return forward


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_replaced_forward_that_goes_around_the_hooks(when: str) -> None:
    model = tiny_model(layers=2)
    if when == "before":
        model.forward = around(model)
    with tp.attach(model, PIPE) as session:
        if when == "after":
            model.forward = around(model)
        for ask in (lambda: answers(model, ONE), lambda: model(**ONE.inputs())):
            with pytest.raises(tp.UnsupportedModeError, match="around the session's hooks"):
                ask()
        answers(model, TEXT)
        assert session.report is None
        del model.forward
        answers(model, ONE)
        assert len(session.reports) == 1


def test_a_replaced_forward_that_goes_through_them() -> None:
    model = tiny_model(layers=2)
    with tp.attach(model, PIPE) as session:
        expected = answers(model, ONE), kept(session)
        own = model.forward
        model.forward = functools.wraps(own)(lambda *args, **kwargs: own(*args, **kwargs))
        assert (answers(model, ONE), kept(session)) == expected


@pytest.mark.parametrize("names", [["", "model", "model.language_model"], ["model", "model.language_model"], ["model"]])
def test_hooks_that_someone_else_has_removed(names: list[str]) -> None:
    """Without the prompt's hook alone, the positions give visual tokens away."""
    model = tiny_model(layers=2)
    with tp.attach(model, PIPE) as session:
        for name in names:
            model.get_submodule(name)._forward_pre_hooks.clear()
        with pytest.raises(tp.UnsupportedModeError, match=r"around the session's hooks|inputs_embeds with visual"):
            answers(model, ONE)
        assert session.report is None


def test_a_generate_taken_before_attaching_is_pruned() -> None:
    model = shared_model()
    generate = model.generate
    with tp.attach(model, PIPE) as session:
        expected = model.generate(**ONE.inputs(), do_sample=False, max_new_tokens=4)
        columns = kept(session)
        assert torch.equal(generate(**ONE.inputs(), do_sample=False, max_new_tokens=4), expected)
        assert kept(session) == columns
        assert len(session.reports) == 2


def test_a_generate_taken_while_attached_is_refused_after_detaching() -> None:
    model = shared_model()
    with tp.attach(model, PIPE):
        generate = model.generate
        answers(model, TEXT)
    with counted(model) as calls:
        with pytest.raises(tp.UnsupportedModeError, match="detached before this call"):
            generate(**ONE.inputs(), max_new_tokens=2)
        assert calls.count == 0
    with tp.attach(model, tp.Pipeline([])):
        watched = model.generate
    expected = model.generate(**ONE.inputs(), max_new_tokens=2, do_sample=False)
    assert torch.equal(watched(**ONE.inputs(), max_new_tokens=2, do_sample=False), expected)


def test_checkpointing_is_named_where_it_takes_the_cache_away() -> None:
    """Older releases do it without gradients too; here a hook does it in their place."""
    model = tiny_model(layers=2).train()
    model.gradient_checkpointing_enable()

    def without_cache(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        return args, {**kwargs, **{name: None for name in ("cache", "past_key_values") if name in kwargs}}

    for layer in model.model.language_model.layers:
        layer.register_forward_pre_hook(without_cache, with_kwargs=True)
    with tp.attach(model, PIPE) as session, torch.no_grad():
        with pytest.raises(tp.UnsupportedModeError, match=r"gradient checkpointing.*model\.eval\(\)"):
            model(**ONE.inputs(), use_cache=True)
        assert session.report is None
        model(**ONE.inputs(), use_cache=False)  # nothing to be dropped
        assert len(session.reports) == 1
