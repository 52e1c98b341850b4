# SPDX-License-Identifier: Apache-2.0
"""Decoders most of whose layers are linear attention: they keep a state, run on what is there, and cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from families.tiny import CASES, prompt, tiny_model
from torch import nn
from transformers import DynamicCache

import tokenprune as tp
from tokenprune.hf.layer import PrunableLayer
from tokenprune.hf.release import cache_of, with_cache
from tokenprune.testing import AdapterConformance, LawBrokenError, VisualPrompt
from tokenprune.testing.masking import Removal, masked_logits
from tokenprune.testing.runs import require_close

[CASE] = [case for case in CASES if str(case) == "qwen3_5"]
ATTENDING = [2, 5]


class Laws(AdapterConformance):
    rows = 3
    images = True
    recurrent = "linear_attn"
    tolerance = 5e-4

    def make_model(self) -> Any:
        return tiny_model(CASE)

    def decoder(self, model: Any) -> nn.Module:
        return model.model.language_model

    def make_prompt(self, rows: Sequence[int]) -> VisualPrompt:
        return prompt(CASE, [CASE.rows[row] for row in rows], rows)


@pytest.mark.parametrize("name", ["dropping", "first layer"])
def test_masking_is_not_what_a_recurrent_layer_does(name: str) -> None:
    """The law as it is for attention does not hold: a masked token would still let the state decay."""
    laws = type("Masked", (Laws,), {"recurrent": "", "_readable": lambda self: ATTENDING})()
    with pytest.raises(LawBrokenError, match="removal-equals-masking: "):
        laws.test_removal_equals_masking(name)


@pytest.mark.parametrize("layer", range(6))
def test_what_reads_nothing_may_cut_after_any_layer(layer: int) -> None:
    model, given = tiny_model(CASE), prompt(CASE, CASE.rows)
    with tp.attach(model, tp.UniformPrune(layer=layer, keep_ratio=0.4)) as session, torch.no_grad():
        found = model(**given.inputs).logits[:, -1]
    removal = Removal.of(given, None, session.report, layer)
    text = model.model.language_model
    truth = masked_logits(model, text, given, given.input_ids[:, :0], removal, (), "linear_attn")
    require_close(found, truth[:, -1], "logits", 5e-4)


def test_only_attention_is_read() -> None:
    model = tiny_model(CASE)
    with pytest.raises(
        tp.InvalidValueError, match="layer 3 has no attention that can be read; layers that have are 2, 5"
    ):
        tp.attach(model, tp.AttnPrune(layer=3, keep=1))
    given = prompt(CASE, CASE.rows)
    for fraction, layer in ((0.1, 2), (0.4, 2), (0.8, 2), (0.9, 5)):
        with tp.attach(model, tp.AttnPrune(layer=fraction, keep=1)) as session, torch.no_grad():
            model(**given.inputs)
        assert session.report.to_dict()["stages"][0]["layer"] == layer


def test_tokens_are_cut_where_they_are_stored_and_states_stay() -> None:
    model, given = tiny_model(CASE), prompt(CASE, CASE.rows[:1])
    with tp.attach(model, tp.UniformSelect(keep=4)) as session, torch.no_grad():
        out = model.generate(**given.inputs, max_new_tokens=2, return_dict_in_generate=True)
    cache, kept = cache_of(out), len(session.report.kept[0])
    assert [i for i, layer in enumerate(cache.layers) if isinstance(layer, PrunableLayer)] == ATTENDING
    assert {cache.layers[i].keys.shape[-2] for i in ATTENDING} == {kept + 1}
    assert session.report.kv_bytes == sum(2 * cache.layers[i].keys[:, :, :kept].nbytes for i in ATTENDING)


@pytest.mark.parametrize("press", [tp.SnapKV(keep=3), tp.KNorm(keep=3)], ids=["reads attention", "reads keys"])
def test_a_press_cuts_the_layers_that_store_tokens(press: Any) -> None:
    model, given = tiny_model(CASE), prompt(CASE, CASE.rows[:1])
    with tp.attach(model, press) as session, torch.no_grad():
        out = model.generate(**given.inputs, max_new_tokens=3, return_dict_in_generate=True)
    assert session.report is not None
    assert session.report.to_dict()["kept_per_head"] == [3]
    left = given.length - len(given.columns(0)) + 3
    assert [cache_of(out).layers[i].keys.shape[-2] for i in ATTENDING] == [left + 2] * 2


def test_rows_of_unequal_length_cannot_go_on_from_states() -> None:
    model, given = tiny_model(CASE), prompt(CASE, CASE.rows[:2])
    cache = DynamicCache(config=model.config.get_text_config())
    more = torch.tensor([[1, 2, 3], [254, 2, 3]])
    places = torch.arange(200, 203).expand(3, 2, 3)
    mask = torch.cat([given.inputs["attention_mask"], torch.tensor([[1, 1, 1], [0, 1, 1]])], dim=1)
    with tp.attach(model, tp.UniformSelect(keep=4)), torch.no_grad():
        model(**with_cache(model, given.inputs, cache), use_cache=True)
        uneven = {"input_ids": more, "attention_mask": mask, "position_ids": places}
        with pytest.raises(tp.UnsupportedModeError, match="rows of unequal length cannot go on from the states"):
            model(**with_cache(model, uneven, cache), use_cache=True)
        even = {**uneven, "attention_mask": torch.cat([mask[:, :-3], torch.ones_like(more)], dim=1)}
        model(**with_cache(model, even, cache), use_cache=True)
