# SPDX-License-Identifier: Apache-2.0
"""A floor under ``AttnPrune``: part of the budget goes to the tokens that Cover would pick first."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles.methods.floor import reference

import tokenprune as tp

SCORES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 1e-30]), min_size=1, max_size=24)  # many ties
BUDGETS = st.one_of(
    st.builds(lambda ratio: {"keep_ratio": ratio}, st.sampled_from([0.1, 0.29, 0.5, 0.7, 1.0])),
    st.builds(lambda keep: {"keep": keep}, st.integers(1, 30)),
)


def floored(
    scores: torch.Tensor, embeddings: torch.Tensor, blocks: torch.Tensor | None = None, **arguments: Any
) -> tp.TokenPlan:
    """The plan over tokens that have these scores and entered the LLM with these embeddings."""
    tokens = tp.VisualTokens(torch.zeros(len(scores), 1), (len(scores), 1, 1), blocks=blocks)
    tokens = dataclasses.replace(tokens, signals={"embeddings": embeddings})
    return tp.AttnPrune(**arguments, scorer=Given(scores)).plan(tokens).validate()


@dataclasses.dataclass(frozen=True, eq=False)
class Given:
    """Scores that were given."""

    scores: torch.Tensor
    reads_attention = False

    def score(self, tokens: tp.VisualTokens) -> torch.Tensor:
        return self.scores


class TestFloor:
    @given(SCORES, BUDGETS, st.sampled_from([0.01, 0.3, 0.5, 0.9, 1.0]), st.integers(0, 2**16))
    def test_it_is_the_reference(self, row: list[float], budget: Any, floor: float, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        scores, embeddings = torch.tensor(row), torch.randn(len(row), 5, generator=generator)
        labels = torch.randint(-2, 3, (len(row),), generator=generator)
        keep, ratio = budget.get("keep"), Fraction(str(budget.get("keep_ratio", 1)))
        count = min(len(row), math.ceil(ratio * len(row)) if keep is None else keep)
        for select in ("global", "stratified"):
            plan = floored(scores, embeddings, labels, **budget, select=select, floor=floor)
            assert plan.kept == count
            if count == len(scores):
                assert plan.is_identity
                continue
            blocks = labels.tolist() if select == "stratified" else None
            wanted, margin = reference(row, blocks, embeddings.numpy(), count, floor)
            if margin > 1e-5:
                assert plan.anchors.tolist() == wanted

    def test_by_hand(self) -> None:
        # The order of the line 0 1 2 9 10 is 10, 0 (mean 4.4), then 2, then 1 and 9 tie.
        line = torch.tensor([[0.0], [1.0], [2.0], [9.0], [10.0]])
        scores = torch.tensor([0.1, 0.5, 0.2, 0.4, 0.3])
        kept = {
            (2, 0.0): [1, 3],
            (2, 0.5): [1, 4],
            (2, 0.51): [0, 4],
            (3, 0.5): [0, 1, 4],
            (1, 0.1): [4],
            (4, 1.0): [0, 1, 2, 4],
        }
        for (keep, floor), wanted in kept.items():
            assert floored(scores, line, keep=keep, floor=floor).anchors.tolist() == wanted

    def test_equal_embeddings_and_scores_keep_the_lowest(self) -> None:
        plan = floored(torch.zeros(9), torch.ones(9, 3), keep=4, floor=0.5)
        assert plan.anchors.tolist() == [0, 1, 2, 3]

    def test_it_is_read_of_what_entered_the_llm(self) -> None:
        assert "embeddings" not in tp.AttnPrune(keep=3).needs
        assert tp.AttnPrune(keep=3, floor=0.1).needs == ("attention", "embeddings")
        assert tp.AttnPrune(keep=3, floor=0.1, scorer="norm").needs == ("attention", "embeddings")

    @pytest.mark.parametrize("floor", [-0.1, 1.1, math.nan, "half", None, True])
    def test_other_floors_are_refused(self, floor: Any) -> None:
        with pytest.raises(tp.InvalidValueError, match="floor must"):
            tp.AttnPrune(keep=3, floor=floor)

    def test_many_tokens_take_coverings_way(self) -> None:
        generator = torch.Generator().manual_seed(4)
        embeddings, scores = torch.randn(1500, 6, generator=generator), torch.rand(1500, generator=generator)
        plan = floored(scores, embeddings, keep=400, floor=0.25)
        picks = tp.Cover(keep=100).plan(tp.VisualTokens(embeddings, (1500, 1, 1))).anchors
        assert set(picks.tolist()) <= set(plan.anchors.tolist())
        assert plan.kept == 400


def test_a_missing_signal_is_named() -> None:
    operator = tp.AttnPrune(keep=1, floor=0.5, scorer=Given(torch.ones(3)))
    with pytest.raises(tp.InvalidValueError, match="AttnPrune reads the signal embeddings"):
        operator.plan(tp.VisualTokens(torch.zeros(3, 1), (3, 1, 1)))
