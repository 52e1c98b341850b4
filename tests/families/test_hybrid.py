# SPDX-License-Identifier: Apache-2.0
"""Decoders most of whose layers are linear attention: they keep a state, run on what is there, and cannot be read."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

pytest.importorskip("transformers")

from families.tiny import CASES, prompt, tiny_model
from torch import nn
from transformers import DynamicCache

import tokenprune as tp
from tokenprune.hf import PrunableDynamicCache
from tokenprune.hf.layer import PrunableLayer
from tokenprune.hf.release import cache_of, with_cache
from tokenprune.testing import AdapterConformance, LawBrokenError, VisualPrompt
from tokenprune.testing.masking import Removal, masked_logits
from tokenprune.testing.observe import Change, intercepted
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


@dataclass(frozen=True)
class NextLayer:
    """Keeps everything, and remembers what the layer behind its own would attend to."""

    seen: list[torch.Tensor]
    layer: int = 1
    site: ClassVar[str] = "after_layer"
    needs: ClassVar[tuple[str, ...]] = ("attention",)
    reads: ClassVar[tuple[str, ...]] = ("attention+1",)

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        self.seen.append(tokens.signals["attention"].rows("text", layer=1))
        return tp.TokenPlan.identity(len(tokens))


def test_a_layer_that_has_not_run_is_read_without_its_gates() -> None:
    """Qwen3.5 projects a gate beside each head's queries."""
    model, given, witness = tiny_model(CASE), prompt(CASE, CASE.rows[:1]), NextLayer([])
    with tp.attach(model, witness), torch.no_grad():
        model(**given.inputs)
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        weights = eager(**given.inputs, output_attentions=True).attentions[0][0]
    asking = [c for c in given.text(0) if c > given.last_visual(0)]
    require_close(witness.seen[0], weights[:, asking][:, :, given.columns(0)], "attention of the next layer")


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


@dataclass(frozen=True)
class Undecided:
    """A merger that does not say how many tokens it will keep."""

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        return tp.TokenPlan.keeping(torch.arange(4), len(tokens))


@pytest.mark.parametrize(
    ("operator", "other", "refused"),
    [
        (tp.UniformSelect(keep_ratio=0.5), 0, False),
        (tp.UniformSelect(keep_ratio=0.5), 1, True),
        (tp.UniformPrune(layer=1, keep_ratio=0.5), 1, True),
        (Undecided(), 0, True),
        (tp.KNorm(keep_ratio=0.5), 0, False),
    ],
    ids=["alike", "unlike", "inside", "undecided", "press"],
)
def test_rows_that_may_become_unequal_are_refused_before_anything_runs(
    operator: Any, other: int, refused: bool
) -> None:
    """Two rows of equal length in a second turn, whose videos may differ in size."""
    model, clips = tiny_model(CASE), CASE.clips
    lengths = [prompt(CASE, [[clip, 5]]).length for clip in clips]
    given = prompt(CASE, [[clips[number], 5 + max(lengths) - lengths[number]] for number in (0, other)])
    types, grids = given.inputs["mm_token_type_ids"], given.inputs["video_grid_thw"]
    places = model.model.get_rope_index(given.input_ids, types, attention_mask=None, video_grid_thw=grids)[0] + 9
    inputs = {**given.inputs, "position_ids": places, "attention_mask": torch.ones(2, 9 + given.length)}
    cache = DynamicCache(config=model.config.get_text_config())
    with tp.attach(model, operator), torch.no_grad():
        model(**with_cache(model, prompt(CASE, [[9], [9]]).inputs, cache), use_cache=True)
        before = cache.layers[0].recurrent_states[0].clone()
        if not refused:
            model(**with_cache(model, inputs, cache), use_cache=True)
            return
        with pytest.raises(tp.UnsupportedModeError, match="may leave rows of unequal length, which cannot go on"):
            model(**with_cache(model, inputs, cache), use_cache=True)
    assert torch.equal(cache.layers[0].recurrent_states[0], before)


def test_padding_behind_a_token_is_refused() -> None:
    model, given = tiny_model(CASE), prompt(CASE, CASE.rows[:1])
    ends = {"input_ids": 254, "attention_mask": 0, "mm_token_type_ids": 0}
    padded = {name: nn.functional.pad(given.inputs[name], (0, 1), value=value) for name, value in ends.items()}
    refused = pytest.raises(tp.UnsupportedModeError, match=r"padding behind a token .* pad on the left")
    with tp.attach(model, tp.UniformSelect(keep_ratio=0.5)), torch.no_grad(), refused:
        model(**{**given.inputs, **padded})


def test_a_cache_without_layers_is_refused_and_one_with_the_config_is_taken() -> None:
    model, given = tiny_model(CASE), prompt(CASE, CASE.rows[:1])
    config = model.config.get_text_config()
    prunable = PrunableDynamicCache(config)
    with tp.attach(model, tp.UniformSelect(keep_ratio=0.5)), torch.no_grad():
        wanted = model(**given.inputs).logits
        for cache in (DynamicCache(), PrunableDynamicCache()):
            with pytest.raises(tp.UnsupportedCacheError, match=r"\(config=model.config\)"):
                model(**with_cache(model, given.inputs, cache))
        for cache in (DynamicCache(config=config), prunable):
            assert torch.equal(model(**with_cache(model, given.inputs, cache)).logits, wanted)
    assert (prunable.logical_length, prunable.stored_length) == (given.length, given.length - 9)
    with pytest.raises(RuntimeError):
        prunable.crop(-2)  # the library's own refusal
    assert prunable.logical_length == given.length


def test_values_are_read_only_where_they_are_stored() -> None:
    """What says that it reads values, and no attention, still needs a layer that stores them."""
    with pytest.raises(tp.InvalidValueError, match="layer 1 has no attention"):
        tp.attach(tiny_model(CASE), ValuesAt(1))
    tp.attach(tiny_model(CASE), ValuesAt(2)).detach()


@dataclass(frozen=True)
class ValuesAt:
    layer: int
    site: ClassVar[str] = "after_layer"
    needs: ClassVar[tuple[str, ...]] = ("attention",)
    reads: ClassVar[tuple[str, ...]] = ("values",)

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        tokens.signals["attention"].values()
        return tp.TokenPlan.identity(len(tokens))


def test_a_press_leaves_the_states_as_they_were() -> None:
    """Later queries do not see what each layer and head has lost; linear layers have seen everything."""
    model, given, count = tiny_model(CASE), prompt(CASE, CASE.rows[:2], [0, 1]), 5
    config, length = model.config.get_text_config(), given.length
    new = torch.randint(0, 50, (2, count), generator=torch.Generator().manual_seed(7))
    whole = torch.cat([given.inputs["attention_mask"], torch.ones_like(new)], dim=1)
    plain, cache = DynamicCache(config=config), DynamicCache(config=config)
    biases: dict[int, torch.Tensor] = {}
    with torch.no_grad():
        model(**with_cache(model, given.inputs, plain), use_cache=True)
        with tp.attach(model, tp.KNorm(keep_ratio=0.4)):
            model(**with_cache(model, given.inputs, cache), use_cache=True)
            for index in ATTENDING:
                columns, real = cache.layers[index].slot_columns_by_head(), cache.layers[index].slot_valid()
                real = torch.ones_like(columns) > 0 if real is None else real[:, None].expand_as(columns)
                here = columns.unsqueeze(-1).expand(-1, -1, -1, config.head_dim)
                assert torch.equal(cache.layers[index].keys[real], plain.layers[index].keys.gather(2, here)[real])
                lost = torch.ones(2, 2, length + 1).scatter_(2, columns.where(real, length), 0.0)[..., :length] > 0
                assert int((lost[0] & given.valid[0]).sum()) == 2 * (18 - 8)
                biases[index] = torch.zeros(2, 4, length + count, length + count)
                late = biases[index][:, :, length:, :length]
                late.masked_fill_(lost.repeat_interleave(2, dim=1)[:, :, None], -1e9)
            places = (whole.cumsum(1) - 1)[:, length:] + model.model.rope_deltas
            more = {"input_ids": new, "attention_mask": whole, "position_ids": places.expand(3, -1, -1)}
            found = model(**with_cache(model, more, cache), use_cache=True).logits
    assert not torch.equal(biases[2], biases[5])
    none = torch.zeros_like(given.valid)
    with ExitStack() as stack:
        for index, bias in biases.items():
            attention = model.model.language_model.layers[index].self_attn
            stack.enter_context(intercepted(attention, _adding(bias)))
        truth = masked_logits(
            model, model.model.language_model, given, new, Removal(none, none, 6, [{}, {}]), (), "linear_attn"
        )
    require_close(found, truth[:, length:], "logits after a press", 5e-4)


def _adding(bias: torch.Tensor) -> Change:
    def change(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, {**kwargs, "attention_mask": kwargs["attention_mask"] + bias}

    return change


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


def test_the_front_end_refuses_a_layer_that_cannot_be_read_before_it_reads_a_video() -> None:
    model, processor = tiny_model(CASE), SimpleNamespace(video_processor=None)
    pruner = tp.VLMPruner(model=model, processor=processor, pipeline=tp.AttnPrune(layer=ATTENDING[0], keep_ratio=0.5))
    assert pruner.pipeline == tp.Pipeline([tp.AttnPrune(layer=ATTENDING[0], keep_ratio=0.5)])
    with pytest.raises(tp.InvalidValueError, match="has no attention that can be read"):
        tp.VLMPruner(model=model, processor=processor, pipeline=tp.AttnPrune(layer=0, keep_ratio=0.5))
