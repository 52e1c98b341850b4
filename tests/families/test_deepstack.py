# SPDX-License-Identifier: Apache-2.0
"""Features that a decoder adds after its first layers follow the plan by the rule that the family declares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from families.tiny import CASES, prompt, tiny_model
from torch import nn

import tokenprune as tp
from tokenprune import plugins
from tokenprune.carried import GATHER, Carried
from tokenprune.hf.families.adapter import FamiliesAdapter
from tokenprune.hf.families.table import DEEPSTACK, QWEN3_VL
from tokenprune.loading import Plugin, PluginInfo
from tokenprune.registry import PluginRegistry
from tokenprune.testing import AdapterConformance, LawBrokenError, VisualPrompt

[CASE] = [case for case in CASES if str(case) == "qwen3_vl"]
OWN = replace(DEEPSTACK, rule=GATHER)
MERGING = ("merging", "merging inside", "both")


class Laws(AdapterConformance):
    rows = 3
    images = True

    def make_model(self) -> Any:
        return tiny_model(CASE)

    def decoder(self, model: Any) -> nn.Module:
        return model.model.language_model

    def make_prompt(self, rows: Sequence[int]) -> VisualPrompt:
        return prompt(CASE, [CASE.rows[row] for row in rows], rows)


class OwnLaws(Laws):
    carried = (OWN,)


@pytest.fixture
def _gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter of Qwen3-VL with which a merged token keeps its anchor's own deepstack features."""
    adapter = FamiliesAdapter(families=(replace(QWEN3_VL, carried=(OWN,)),))
    registry = PluginRegistry((Plugin(PluginInfo("own"), adapters=(adapter,)),))
    monkeypatch.setattr(plugins, "_default", registry)


@pytest.mark.usefixtures("_gathered")
@pytest.mark.parametrize("name", MERGING)
def test_the_other_rule_keeps_the_law_of_its_own_declaration(name: str) -> None:
    OwnLaws().test_removal_equals_masking(name)


@pytest.mark.usefixtures("_gathered")
@pytest.mark.parametrize("name", MERGING)
def test_the_law_notices_another_rule_than_the_declared_one(name: str) -> None:
    laws = type("Merged", (Laws,), {"carried": (DEEPSTACK,)})()
    with pytest.raises(LawBrokenError, match="removal-equals-masking: logits of step 0 differ"):
        laws.test_removal_equals_masking(name)


def test_where_nothing_goes_the_decoder_adds_by_itself() -> None:
    """A cut behind the layers that are added to leaves the library's own code at it, and so does keeping all."""
    model, given = tiny_model(CASE), prompt(CASE, CASE.rows)
    seen: list[bool] = []

    def look(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        seen.append(kwargs.get(DEEPSTACK.name) is not None)

    pipelines = [tp.AttnPrune(layer=3, keep=2), tp.AttnPrune(layer=1, keep=2), tp.UniformSelect(keep_ratio=0.5)]
    for pipeline in (tp.Pipeline(), *pipelines):
        with tp.attach(model, pipeline):
            handle = model.model.language_model.register_forward_pre_hook(look, with_kwargs=True)
            with torch.no_grad():
                model(**given.inputs)
            handle.remove()
    assert seen == [True, True, False, False]


def test_a_declared_list_is_carried_even_if_nobody_gives_it() -> None:
    """A text row, or a later turn, comes without features."""
    assert CASE.family.carried == (Carried("deepstack_visual_embeds", "merge", packed_by="visual_pos_masks"),)
    model, given = tiny_model(CASE), prompt(CASE, [[9]])
    with torch.no_grad():
        plain = model(**given.inputs).logits
        with tp.attach(model, tp.UniformSelect(keep_ratio=0.5)):
            assert torch.equal(model(**given.inputs).logits, plain)
