# SPDX-License-Identifier: Apache-2.0
"""The operators inside the LLM: exact budgets, ties, strata, the baselines, refused arguments, JSON."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles.prunevid_reference import reference_budget_shares

from tokenprune.errors import BudgetError, InvalidValueError, PipelineFileError
from tokenprune.operator import Operator
from tokenprune.operators.attn_prune import AttnPrune
from tokenprune.operators.uniform_prune import RandomPrune, UniformPrune
from tokenprune.pipeline import Pipeline
from tokenprune.scorers import ContentScore, KeyNormScore, RopeCausalScore
from tokenprune.tokens import VisualTokens

SELECTORS: list[Any] = [
    lambda **budget: AttnPrune(**budget),
    lambda **budget: AttnPrune(**budget, select="stratified"),
    lambda **budget: UniformPrune(**budget),
    lambda **budget: RandomPrune(**budget),
]
NAMES = ["global", "stratified", "uniform", "random"]
every_selector = pytest.mark.parametrize("make", SELECTORS, ids=NAMES)

BAD_BUDGETS: list[Any] = [
    {},
    {"keep": 3, "keep_ratio": 0.5},
    *({"keep": keep} for keep in (0, -1, 2.0, True, "2")),
    *({"keep_ratio": ratio} for ratio in (0.0, 1.1, -0.5, math.nan, "1", True)),
]
BAD_MODALITIES: list[Any] = [
    *("video", "", (), [], ("audio",), ("video", "video"), None, 3, (1,), {"video"}, ("video", ["image"])),
]

few_values = st.sampled_from([0.0, -0.0, 0.25, 0.5, 1.0, 1e-30, math.inf])  # many ties
budgets = st.one_of(
    st.builds(lambda ratio: {"keep_ratio": ratio}, st.sampled_from([0.001, 0.1, 0.29, 0.3, 0.5, 0.7, 0.999, 1.0])),
    st.builds(lambda keep: {"keep": keep}, st.integers(1, 40)),
)


@st.composite
def rows(draw: Any) -> tuple[list[float], list[int]]:
    """Scores and block labels of one prompt row."""
    scores = draw(st.lists(few_values, min_size=1, max_size=30))
    labels = draw(st.lists(st.integers(-2, 5), min_size=len(scores), max_size=len(scores)))
    return scores, labels


def expected_count(budget: dict[str, Any], total: int) -> int:
    if "keep" in budget:
        return min(budget["keep"], total)
    return min(total, math.ceil(Fraction(str(budget["keep_ratio"])) * total))


def best(indices: list[int], scores: list[float], count: int) -> list[int]:
    return sorted(indices, key=lambda i: (-scores[i], i))[:count]


def of(total: int) -> VisualTokens:
    """So many tokens, whatever they hold."""
    return VisualTokens(torch.zeros(total, 1), (total, 1, 1))


def decide(operator: Any, scores: torch.Tensor, blocks: torch.Tensor) -> Any:
    """The plan over these scores, or over so many tokens for operators that do not rank."""
    return operator.choose(scores, blocks) if isinstance(operator, AttnPrune) else operator.plan(of(len(scores)))


def tensors(scores: list[float], labels: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(scores, dtype=torch.float32), torch.tensor(labels, dtype=torch.int64)


@every_selector
@given(row=rows(), budget=budgets)
def test_budget_is_exact_and_indices_are_sorted(make: Any, row: tuple[list[float], list[int]], budget: Any) -> None:
    scores, labels = row
    plan = decide(make(**budget), *tensors(scores, labels)).validate()
    assert (plan.total, plan.kept) == (len(scores), expected_count(budget, len(scores)))
    dropped = [i for i in range(len(scores)) if i not in set(plan.anchors.tolist())]
    assert all(int(plan.assign[i]) == -1 for i in dropped)  # nothing is merged


@given(row=rows(), budget=budgets)
def test_global_is_one_stable_ranking(row: tuple[list[float], list[int]], budget: Any) -> None:
    scores, labels = row
    plan = AttnPrune(**budget).choose(*tensors(scores, labels))
    wanted = best(list(range(len(scores))), scores, expected_count(budget, len(scores)))
    assert plan.anchors.tolist() == sorted(wanted)


@given(row=rows(), budget=budgets)
def test_stratified_is_a_ranking_a_block(row: tuple[list[float], list[int]], budget: Any) -> None:
    scores, labels = row
    plan = AttnPrune(**budget, select="stratified").choose(*tensors(scores, labels))
    members = [[i for i, label in enumerate(labels) if label == value] for value in sorted(set(labels))]
    sizes = [len(block) for block in members]
    shares = reference_budget_shares(sizes, sizes, expected_count(budget, len(scores)))
    wanted = [i for block, share in zip(members, shares) for i in best(block, scores, share)]
    assert plan.anchors.tolist() == sorted(wanted)


@given(row=rows(), budget=budgets)
def test_only_the_order_of_labels_counts(row: tuple[list[float], list[int]], budget: Any) -> None:
    scores, labels = row
    selector = AttnPrune(**budget, select="stratified")
    spread = [label * 1000 + 7 for label in labels]
    assert selector.choose(*tensors(scores, labels)).anchors.equal(selector.choose(*tensors(scores, spread)).anchors)


def test_all_tied_keeps_the_first() -> None:
    scores, one_block = torch.zeros(5000), torch.zeros(5000, dtype=torch.int64)
    for select in ("global", "stratified"):
        plan = AttnPrune(keep=1234, select=select).choose(scores, one_block)
        assert plan.anchors.equal(torch.arange(1234))


@every_selector
def test_a_row_does_not_see_its_batch(make: Any) -> None:
    """Same scores, same plan: alone, as a strided row of a batch, or in a batch in another order."""
    generator = torch.Generator().manual_seed(0)
    batch = torch.rand(4, 33, generator=generator)
    blocks = torch.randint(0, 5, (4, 33), generator=generator)
    selector = make(keep_ratio=0.4)
    alone = [decide(selector, batch[row].clone(), blocks[row].clone()).anchors for row in range(4)]
    strided_scores, strided_blocks = batch.t().contiguous(), blocks.t().contiguous()
    shuffled = [3, 1, 0, 2]
    for row, expected in enumerate(alone):
        assert decide(selector, strided_scores[:, row], strided_blocks[:, row]).anchors.equal(expected)
        place = shuffled.index(row)
        assert decide(selector, batch[shuffled][place], blocks[shuffled][place]).anchors.equal(expected)


@every_selector
@pytest.mark.parametrize("budget", [{"keep_ratio": 1.0}, {"keep_ratio": 0.99}, {"keep": 7}, {"keep": 100}])
def test_keeping_all_is_the_identity(make: Any, budget: Any) -> None:
    plan = decide(make(**budget), torch.full((7,), math.nan), torch.zeros(7, dtype=torch.int64))
    assert plan.is_identity
    assert plan.assign.equal(torch.arange(7))


@every_selector
def test_inputs_are_not_mutated(make: Any) -> None:
    scores, blocks = torch.rand(20, generator=torch.Generator().manual_seed(1)), torch.arange(20) // 6
    kept = scores.clone(), blocks.clone()
    decide(make(keep=5), scores, blocks)
    assert scores.equal(kept[0])
    assert blocks.equal(kept[1])


@pytest.mark.parametrize("select", ["global", "stratified"])
def test_nan_scores_are_refused(select: str) -> None:
    selector = AttnPrune(keep=1, select=select, scorer="content")
    with pytest.raises(InvalidValueError, match="scores of ContentScore must be numbers, but they hold NaN"):
        selector.choose(torch.tensor([0.1, math.nan, 0.3]), torch.zeros(3, dtype=torch.int64))


def test_shapes_are_checked() -> None:
    for scores, blocks in ((torch.zeros(3), torch.zeros(4)), (torch.zeros(3, 1), torch.zeros(3))):
        with pytest.raises(InvalidValueError, match=r"shape \(N,\)"):
            AttnPrune(keep=1).choose(scores, blocks.long())


class TestBaselines:
    @given(total=st.integers(1, 300), keep=st.integers(1, 300))
    def test_uniform_is_even(self, total: int, keep: int) -> None:
        anchors = UniformPrune(keep=keep).plan(of(total)).anchors.tolist()
        count = min(keep, total)
        assert anchors == [math.floor(Fraction(2 * i + 1, 2) * Fraction(total, count)) for i in range(count)]
        gaps = {b - a for a, b in itertools.pairwise(anchors)}
        assert not gaps or max(gaps) - min(gaps) <= 1
        assert abs(anchors[0] - (total - 1 - anchors[-1])) <= 1  # as much is left at the start as at the end

    @given(total=st.integers(2, 200), seed=st.integers(0, 2**63 - 1))
    def test_random_is_nested_and_repeatable(self, total: int, seed: int) -> None:
        nothing = of(total)
        kept = [
            set(RandomPrune(keep=keep, seed=seed).plan(nothing).anchors.tolist())
            for keep in (1, total // 2 + 1, total - 1, 1)
        ]
        assert kept[0] <= kept[2]
        assert kept[0] <= kept[1] <= kept[2] or len(kept[1]) > len(kept[2])
        assert kept[0] == kept[3]

    def test_random_depends_on_its_seed_alone(self) -> None:
        nothing = of(200)
        first = RandomPrune(keep=50).plan(nothing).anchors
        torch.manual_seed(99)
        state = torch.get_rng_state()
        assert RandomPrune(keep=50).plan(nothing).anchors.equal(first)
        assert torch.get_rng_state().equal(state)
        assert not RandomPrune(keep=50, seed=1).plan(nothing).anchors.equal(first)

    def test_random_is_fair(self) -> None:
        nothing = of(10)
        drawn = torch.cat([RandomPrune(keep=3, seed=seed).plan(nothing).anchors for seed in range(400)])
        assert int(torch.bincount(drawn, minlength=10).min()) > 80  # 120 expected
        assert int(torch.bincount(drawn, minlength=10).max()) < 160

    def test_what_tokens_hold_does_not_matter_and_nothing_is_read(self) -> None:
        other = VisualTokens(torch.full((9, 4), math.nan), (3, 3, 1))
        for operator in (UniformPrune(keep=2), RandomPrune(keep=2)):
            assert getattr(operator, "needs", ()) == ()
            assert operator.plan(of(9)).anchors.equal(operator.plan(other).anchors)

    @pytest.mark.parametrize("seed", [-1, 2**63, 1.0, True, "0", None])
    def test_bad_seeds(self, seed: Any) -> None:
        with pytest.raises(InvalidValueError, match=r"seed must be an integer in \[0, 2\*\*63\), got"):
            RandomPrune(keep=1, seed=seed)


class Mine:
    """A scorer of somebody else: no base class, no dataclass."""

    def score(self, tokens: VisualTokens) -> torch.Tensor:
        return torch.zeros(len(tokens))


class TestArguments:
    @every_selector
    def test_acts_inside_the_llm(self, make: Any) -> None:
        selector = make(keep=3)
        assert isinstance(selector, Operator)
        assert selector.site == "after_layer"
        assert selector.layer == 0.36
        assert selector.modalities == ("video",)
        assert selector.budget.count(10) == 3
        assert Pipeline([selector]).selectors == (selector,)

    @every_selector
    @pytest.mark.parametrize("budget", BAD_BUDGETS)
    def test_budget(self, make: Any, budget: Any) -> None:
        with pytest.raises(BudgetError):
            make(**budget)

    @every_selector
    @pytest.mark.parametrize("layer", [-1, 1.0, 0.0, 10.0, True, "10", None, math.nan])
    def test_layer(self, make: Any, layer: Any) -> None:
        with pytest.raises(InvalidValueError, match="layer must be a 0-based layer index"):
            make(keep=1, layer=layer)

    @every_selector
    @pytest.mark.parametrize("modalities", BAD_MODALITIES)
    def test_modalities(self, make: Any, modalities: Any) -> None:
        with pytest.raises(InvalidValueError, match="modalities must be a non-empty tuple of 'video' and/or 'image'"):
            make(keep=1, modalities=modalities)

    @every_selector
    def test_modalities_become_a_tuple(self, make: Any) -> None:
        selector = make(keep=1, modalities=["image", "video"])
        assert selector.modalities == ("image", "video")
        assert hash(selector) == hash(make(keep=1, modalities=("image", "video")))

    @pytest.mark.parametrize("select", ["local", "", None, 1, ["global"]])
    def test_selection(self, select: Any) -> None:
        with pytest.raises(InvalidValueError, match="select must be one of global, stratified, got"):
            AttnPrune(keep=1, select=select)

    @pytest.mark.parametrize("scorer", ["attention", RopeCausalScore, None])
    def test_scorer(self, scorer: Any) -> None:
        with pytest.raises(InvalidValueError, match="scorer must be 'rope_causal'"):
            AttnPrune(keep=1, scorer=scorer)

    def test_names_become_scorers(self) -> None:
        assert AttnPrune(keep=1) == AttnPrune(keep=1, scorer=RopeCausalScore())
        assert AttnPrune(keep=1, scorer="content").scorer == ContentScore()
        assert AttnPrune(keep=1, scorer="norm").scorer == KeyNormScore()
        assert isinstance(AttnPrune(keep=1, scorer=Mine()).scorer, Mine)

    def test_frozen_hashable_and_replaceable(self) -> None:
        selector = AttnPrune(layer=3, keep_ratio=0.4, scorer=ContentScore("mean"), select="stratified")
        with pytest.raises(dataclasses.FrozenInstanceError):
            selector.layer = 4  # type: ignore[misc]
        assert len({selector, dataclasses.replace(selector)}) == 1
        moved = dataclasses.replace(selector, layer=5, scorer="norm")
        assert (moved.layer, moved.scorer, moved.select) == (5, KeyNormScore(), "stratified")
        with pytest.raises(BudgetError):
            dataclasses.replace(selector, keep=3)


class TestJson:
    @pytest.mark.parametrize(
        "selector",
        [
            AttnPrune(keep_ratio=0.4),
            AttnPrune(3, keep=50, scorer=ContentScore("mean"), select="stratified", modalities=("image", "video")),
            AttnPrune(keep=50, scorer="norm", floor=0.5),
            UniformPrune(keep_ratio=0.3, modalities=("image",)),
            RandomPrune(layer=2, keep=9, seed=5),
        ],
    )  # fmt: skip
    def test_round_trip(self, selector: Any) -> None:
        pipeline = Pipeline([selector])
        text = json.dumps(pipeline.to_dict())
        assert Pipeline.from_dict(json.loads(text)) == pipeline

    def test_how_it_is_written(self) -> None:
        assert Pipeline([AttnPrune(keep_ratio=0.4)]).to_dict()["operators"] == [
            {
                "operator": "AttnPrune",
                "layer": 0.36,
                "keep_ratio": 0.4,
                "keep": None,
                "scorer": {"operator": "RopeCausalScore", "head_reduction": "max"},
                "select": "global",
                "modalities": ["video"],
                "floor": 0.0,
            }
        ]

    def read(self, **parameters: Any) -> Any:
        described = {"operator": "AttnPrune", "keep": 5, **parameters}
        return Pipeline.from_dict({"format": "tokenprune.pipeline", "version": 1, "operators": [described]}).operators[
            0
        ]

    def test_a_name_will_do(self) -> None:
        assert self.read(scorer="content") == AttnPrune(keep=5, scorer=ContentScore())

    @pytest.mark.parametrize(
        "wrong",
        [
            {"scorer": "attention"},
            {"scorer": {"operator": "NoSuchScore"}},
            {"scorer": {"operator": "RopeCausalScore", "head_reduction": "sum"}},
            {"scorer": {"operator": "AttnPrune", "keep": 1}},
            {"scorer": ["rope_causal"]},
            {"select": "local"},
            {"select": ["global"]},
            {"modalities": "video"},
            {"modalities": [["video"]]},
            {"layer": 1.0},
            {"floor": 1.5},
            {"keep_ratio": 0.5},
            {"keep": 5.0},
            {"selection": "global"},
        ],
    )
    def test_wrong_files(self, wrong: Any) -> None:
        with pytest.raises(PipelineFileError):
            self.read(**wrong)
