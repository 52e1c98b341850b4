# SPDX-License-Identifier: Apache-2.0
"""What the protocol allows: images before the LLM, merging and content-sized budgets at a layer, schedules, mixing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch

pytest.importorskip("transformers")

from hf.compare import agrees, generate
from hf.mass_cases import FIRST, LAYER_CASES, MORE_LAYER_CASES, Case
from hf.mass_oracle import mass_oracle
from hf.prompts import Clip, image, prompt, shared_model
from hf.running import answers, kept

import tokenprune as tp
from tokenprune.errors import InvalidValueError, PlanError
from tokenprune.mixing import Mixing

MIXED = prompt([[3, image(2, 3), 2, Clip(3, 2, 2), 4]])


@pytest.mark.parametrize("rows", FIRST)
@pytest.mark.parametrize(
    "case", [*LAYER_CASES.values(), *MORE_LAYER_CASES.values()], ids=[*LAYER_CASES, *MORE_LAYER_CASES]
)
def test_merging_at_a_layer_without_mass(case: Case, rows: str) -> None:
    """Hidden states are merged, later layers see the merged; the caches before keep the anchors' own."""
    (operators, turn), model, given = case, shared_model(), prompt(FIRST[rows])
    with tp.attach(model, tp.Pipeline(operators)):
        run = generate(model, given)
    whole = given.answered(run.sequences[:, given.length :])
    agrees(run.logits, mass_oracle(model, whole, turn.keeping(False)), given.length - 1)


@dataclass(frozen=True)
class FirstOf:
    """Keeps the first tokens of each image or video before the LLM."""

    modalities: tuple[str, ...]
    keep: int = 2

    @property
    def budget(self) -> tp.Budget:
        return tp.Budget(keep=self.keep)

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        assert {span.modality for span in tokens.spans} <= set(self.modalities)
        return tp.TokenPlan.keeping(torch.arange(self.budget(len(tokens))), len(tokens))


@pytest.mark.parametrize(
    ("modalities", "left"), [(("image",), 2 + 12), (("video",), 6 + 2), (("video", "image"), 2 + 2)]
)
def test_images_before_the_llm(modalities: tuple[str, ...], left: int) -> None:
    model = shared_model()
    with tp.attach(model, tp.Pipeline([FirstOf(modalities)])) as session:
        answers(model, MIXED)
    assert session.report.stages[0]["visual_after"] == [left]
    assert len(kept(session)[0]) == MIXED.length - 18 + left


@dataclass(frozen=True)
class Halving:
    """Half of the tokens are left after each of these layers: a half and a quarter of those that entered."""

    layers: tuple[int, ...] = (0, 2)

    def operators(self, depth: int) -> Sequence[tp.Operator]:
        return [tp.AttnPrune(layer=layer, keep_ratio=0.5**n) for n, layer in enumerate(self.layers, 1)]


def test_a_ratio_of_a_schedule_is_of_what_entered_it() -> None:
    """Before the LLM of each video, inside it of the row; not of what a stage is shown."""

    @dataclass(frozen=True)
    class Thirds:
        def operators(self, depth: int) -> Sequence[tp.Operator]:
            return [tp.UniformSelect(keep_ratio=0.6), *Halving((0, 1)).operators(depth), tp.RandomPrune(2, 0.1)]

    model, given = shared_model(), prompt([[3, Clip(19, 1, 1), 2], [2, Clip(2, 2, 2), 3, Clip(3, 1, 1), 4]])
    with tp.attach(model, [tp.UniformSelect(keep=18), Thirds()]) as session:
        answers(model, given)
    assert [s["visual_after"] for s in session.report.stages] == [[18, 11], [11, 5 + 2], [9, 6], [5, 3], [2, 2]]


def test_a_schedule_is_its_operators_in_turn() -> None:
    model, scheduled = shared_model(), tp.Pipeline([Halving()])
    with tp.attach(model, scheduled) as one:
        mine = answers(model, MIXED)
    alone = [tp.AttnPrune(layer=0, keep_ratio=0.5), tp.AttnPrune(layer=2, keep_ratio=0.5)]
    with tp.attach(model, tp.Pipeline(alone)) as other:
        assert answers(model, MIXED) == mine
    assert [s["visual_after"] for s in one.report.stages] == [s["visual_after"] for s in other.report.stages]
    assert [s["visual_after"] for s in one.report.stages] == [[12], [9]]
    assert scheduled.layers(4) == [0, 2]
    with pytest.raises(InvalidValueError, match="beyond the model's 2"):
        scheduled.layers(2)
    with pytest.raises(InvalidValueError, match="strictly increasing"):
        tp.Pipeline([Halving((2, 0))]).stages(4)


@dataclass(frozen=True)
class Seen:
    """Keeps everything and remembers the features it was shown."""

    shown: list[torch.Tensor] = field(default_factory=list)

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        self.shown.append(tokens.features)
        return tp.TokenPlan.identity(len(tokens))


@dataclass(frozen=True)
class Blend:
    """The first half go on; each is itself plus half of the last token, which feeds them all."""

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        count, last = len(tokens) // 2, len(tokens) - 1
        places = torch.arange(count)
        columns = torch.cat([places, torch.full((count,), last)])
        weights = torch.cat([torch.ones(count), torch.full((count,), 0.5)])
        plan = tp.TokenPlan.keeping(places, len(tokens))
        return tp.TokenPlan(plan.anchors, plan.assign, mixing=Mixing(places.repeat(2), columns, weights))


def test_one_token_may_feed_several() -> None:
    model, before, after = shared_model(), Seen(), Seen()
    with tp.attach(model, tp.Pipeline([before, Blend(), after])):
        answers(model, MIXED)
    features = before.shown[0]
    assert torch.allclose(after.shown[0], features[:6] + 0.5 * features[-1:], atol=1e-6)


@dataclass(frozen=True)
class Promises(FirstOf):
    """Keeps one token more than it says."""

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        return tp.TokenPlan.keeping(torch.arange(self.keep + 1), len(tokens))


@dataclass(frozen=True)
class Unlawful:
    """A plan over other tokens than it was shown."""

    layer: int = 1
    site: ClassVar[str] = "after_layer"

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        return tp.TokenPlan.keeping(torch.arange(1), len(tokens) + 1)


@pytest.mark.parametrize(
    ("operator", "said"),
    [
        (Promises(("video",)), r"Promises\.budget leaves 2 of 12 tokens, but its plan 3"),
        (Unlawful(), "Unlawful was asked about 12 tokens and gave a plan over 13"),
    ],
)
def test_a_plan_that_breaks_its_word_is_refused(operator: Any, said: str) -> None:
    model = shared_model()
    with tp.attach(model, tp.Pipeline([operator])), pytest.raises(PlanError, match=said):
        answers(model, MIXED)
