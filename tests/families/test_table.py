# SPDX-License-Identifier: Apache-2.0
"""The table and its adapter: who is served, who is declined and why, and that a row stays a row."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import tokenprune as tp
from tokenprune.hf.families import adapter as adapters
from tokenprune.hf.families import find
from tokenprune.hf.families.adapter import FamiliesAdapter
from tokenprune.hf.families.declined import DECLINED
from tokenprune.hf.families.table import FAMILIES
from tokenprune.plugins import find_adapter

pytest.importorskip("transformers")

from families.tiny import CASES, Tiny, new_model, tiny_model

BY_NAME = {str(case): case for case in CASES}


def changed(name: str, **text: Any) -> Tiny:
    """A case with other settings of its decoder."""
    case = BY_NAME[name]
    return replace(case, config={**case.config, "text_config": {**case.config["text_config"], **text}})


def test_every_family_is_tried() -> None:
    assert {case.family.name for case in CASES} == {family.name for family in FAMILIES}


def test_names_and_classes_are_unique_and_qwen25vl_is_left_to_its_package() -> None:
    for names in ([f.name for f in FAMILIES], [f.model_type for f in FAMILIES], [f.model_class for f in FAMILIES]):
        assert len(set(names)) == len(names)
    assert not {f.model_class for f in FAMILIES} & set(DECLINED)
    assert not any(name.startswith("Qwen2_5_VL") for name in (*DECLINED, *(f.model_class for f in FAMILIES)))


def test_the_table_imports_nothing_heavy() -> None:
    code = """
import json, sys
from tokenprune.hf.families import plugin
plugin.tokenprune_model_adapters()[0].models
print(json.dumps(sorted({"transformers", "accelerate", "torchvision", "av", "PIL"} & set(sys.modules))))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == []


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_model_in_a_wrapper_is_found(case: Tiny) -> None:
    wrapper = nn.Sequential(nn.Linear(1, 1), tiny_model(case))
    found = find_adapter(wrapper)
    layers = list(tiny_model(case).get_submodule(case.family.placed(tiny_model(case)).text).layers)
    assert (found.name, found.depth) == ("families", len(layers))
    assert [found.can_read(i) for i in range(len(layers))] == [hasattr(layer, "self_attn") for layer in layers]
    assert FamiliesAdapter().family_of(wrapper) is case.family
    parts = case.family.parts(wrapper)
    assert parts.model is wrapper[1]
    assert "inputs_embeds" in inspect.signature(type(parts.text).forward).parameters
    assert parts.tower is not parts.text


def test_the_model_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prefill asks several times, and a walk over the modules of a large model is slow."""
    model, adapter = tiny_model(BY_NAME["video_llama_3"]), FamiliesAdapter()
    adapter.family_of(model)
    monkeypatch.setattr(find, "heads_in", lambda *args: pytest.fail("the modules are walked again"))
    assert adapter.family_of(model).name == "video_llama_3"
    adapter.attention(model, 1)
    adapter.port(model)


def test_none_and_two_models_are_declined() -> None:
    model = tiny_model(BY_NAME["qwen3_vl"])
    with pytest.raises(tp.NoAdapterError, match=r"families: Linear holds no model of the table \(qwen2_vl, qwen3_vl, "):
        tp.attach(nn.Linear(1, 1), tp.Pipeline())
    with pytest.raises(tp.NoAdapterError, match="families: Sequential holds 2 models with a language head"):
        tp.attach(nn.Sequential(model, tiny_model(BY_NAME["internvl"])), tp.Pipeline())
    with pytest.raises(tp.UnsupportedModeError, match="Linear is no qwen3_vl model"):
        BY_NAME["qwen3_vl"].family.parts(nn.Linear(1, 1))


def test_what_cannot_be_right_is_declined_with_its_reason() -> None:
    sliding = {"use_sliding_window": True, "max_window_layers": 2, "sliding_window": 8}
    with pytest.raises(tp.NoAdapterError, match="families: internvl: the decoder has sliding-window layers"):
        tp.attach(new_model(changed("internvl", **sliding)), tp.Pipeline())
    with pytest.raises(tp.NoAdapterError, match="families: internvl: its language model is a MistralModel; tried are"):
        tp.attach(new_model(changed("internvl", model_type="mistral")), tp.Pipeline())


def test_a_class_of_the_list_is_declined_by_name() -> None:
    from transformers import Gemma3ForConditionalGeneration

    model = Gemma3ForConditionalGeneration.__new__(Gemma3ForConditionalGeneration)
    nn.Module.__init__(model)
    with pytest.raises(tp.NoAdapterError, match="families: Gemma3ForConditionalGeneration: its 4-D attention masks"):
        tp.attach(model, tp.Pipeline())


def test_an_unreadable_attention_is_declined() -> None:
    model = new_model(BY_NAME["qwen3_vl"])
    del model.model.language_model.layers[2].self_attn.k_proj
    with pytest.raises(tp.NoAdapterError, match="qwen3_vl: layer 2 has no attention whose queries and keys"):
        tp.attach(model, tp.Pipeline())


def test_the_plugin_list_tells_of_each_family(monkeypatch: pytest.MonkeyPatch) -> None:
    [info] = [info for info in tp.list_plugins() if info.name == "families"]
    assert dict(info.models).keys() == {*(family.name for family in FAMILIES), *DECLINED}
    monkeypatch.setattr(adapters, "find_spec", lambda name: None)
    missing = dict(FamiliesAdapter().models)
    assert missing["smolvlm"] == "its processor needs num2words: pip install num2words"
    assert missing["qwen3_vl"] == ""


def test_the_page_of_models_names_every_family_and_class() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in page.splitlines() if "ForConditionalGeneration`" in line]
    shown = {(row[0].strip("| `"), row[1].strip("`")) for row in rows if not row[0].startswith("| Qwen")}
    assert shown == {(family.name, family.model_class) for family in FAMILIES}
