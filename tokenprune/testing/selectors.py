# SPDX-License-Identifier: Apache-2.0
"""The laws of operators inside the LLM."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from tokenprune.depth import check_layer
from tokenprune.messages import shown
from tokenprune.operators.selection import check_modalities
from tokenprune.protocols import TokenMerger, TokenScorer, TokenSelector
from tokenprune.testing.laws import Law, check_all, law, require
from tokenprune.testing.mergers import RATIOS
from tokenprune.testing.same import (
    exact_count,
    has_budget,
    require_json,
    require_lawful,
    same_plan,
    unchanged,
    whatever_the_surroundings,
    with_budget,
)
from tokenprune.testing.strategies import selector_inputs


def check_selector(selector: TokenSelector, *, max_examples: int = 20) -> list[str]:
    """Hold a selector to every law of selectors that speaks about it; as :func:`check_merger`.

    Raises:
        LawBrokenError: a law does not hold; the message names it.
    """
    return check_all(SELECTOR_LAWS, selector, max_examples)


@law(11)
def it_is_a_selector(selector: TokenSelector, data: st.DataObject) -> None:
    """A selector stands at a layer, has modalities, a budget and a scorer, and is no merger."""
    require(not isinstance(selector, type), f"{shown(selector)} is a class")
    require(isinstance(selector, TokenSelector), f"{type(selector).__name__} lacks a part of TokenSelector")
    require(not isinstance(selector, TokenMerger), f"{type(selector).__name__} is a merger as well")
    require(isinstance(selector.scorer, TokenScorer), f"{shown(selector.scorer)} has no score(view)")
    check_layer("layer", selector.layer)
    check_modalities(selector.modalities)


@law(3)
def the_plan_is_a_pruning(selector: TokenSelector, data: st.DataObject) -> None:
    """The plan is valid and merges nothing: what is not kept is dropped, since keys cannot be averaged."""
    scores, blocks = data.draw(selector_inputs())
    plan = require_lawful(selector.choose(scores, blocks), len(scores), scores.device)
    require(int((plan.assign >= 0).sum()) == plan.kept, "tokens were merged")


@law(8)
def the_budget_is_kept(selector: TokenSelector, data: st.DataObject) -> None:
    """As many tokens stay as the selector's own ``budget`` says; the runtime relies on it."""
    scores, blocks = data.draw(selector_inputs())
    kept, wanted = selector.choose(scores, blocks).kept, selector.budget.count(len(scores))
    require(kept == wanted, f"budget {selector.budget} means {wanted} of {len(scores)}, {kept} were kept")


@law(8, applies=has_budget)
def budgets_are_exact(selector: TokenSelector, data: st.DataObject) -> None:
    """``keep_ratio`` leaves ``ceil(keep_ratio * n)`` tokens of a row and ``keep`` that many, at least 1."""
    scores, blocks = data.draw(selector_inputs())
    for keep_ratio, keep in ((data.draw(RATIOS), None), (None, data.draw(st.integers(1, len(scores) + 1)))):
        kept = with_budget(selector, keep_ratio, keep).choose(scores, blocks).kept
        wanted = exact_count(keep_ratio, keep, len(scores))
        require(kept == wanted, f"keep_ratio={keep_ratio}, keep={keep} left {kept} of {len(scores)}, not {wanted}")


@law(1, applies=has_budget)
def keeping_all_changes_nothing(selector: TokenSelector, data: st.DataObject) -> None:
    """A budget for every token gives the identity."""
    scores, blocks = data.draw(selector_inputs())
    for keep_ratio, keep in ((1.0, None), (None, len(scores)), (None, len(scores) + 7)):
        plan = with_budget(selector, keep_ratio, keep).choose(scores, blocks)
        require(plan.is_identity, f"keep_ratio={keep_ratio}, keep={keep} is not the identity over {len(scores)}")


@law(7)
def the_same_bits_give_the_same_plan(selector: TokenSelector, data: st.DataObject) -> None:
    """Decisions hang on scores and blocks alone: no random numbers, autocast or inference mode."""
    scores, blocks = data.draw(selector_inputs())
    expected = selector.choose(scores, blocks)
    whatever_the_surroundings(lambda: selector.choose(scores.clone(), blocks.clone()), expected)


@law(6)
def a_row_is_decided_on_its_own(selector: TokenSelector, data: st.DataObject) -> None:
    """The plan of a row is the same whatever rows came before it, and however its scores lie in memory."""
    scores, blocks = data.draw(selector_inputs())
    expected = selector.choose(scores, blocks)
    selector.choose(*data.draw(selector_inputs()))
    require(same_plan(selector.choose(scores, blocks), expected), "after another row the plan is another one")
    strided = torch.stack([scores, scores + 1], dim=1)[:, 0]
    same = same_plan(selector.choose(strided, blocks), expected)
    require(same, "laid out differently in memory, the same scores gave another plan")


@law(10)
def nothing_is_changed(selector: TokenSelector, data: st.DataObject) -> None:
    """Scores, blocks, the selector itself and the global random generator are left as they were."""
    scores, blocks = data.draw(selector_inputs())
    with unchanged(("scores", "blocks"), (scores, blocks), selector):
        selector.choose(scores, blocks)


@law(10)
def it_can_be_written_down(selector: TokenSelector, data: st.DataObject) -> None:
    """A pipeline with the selector can be written as JSON; read again, it is equal."""
    require_json(selector)


SELECTOR_LAWS: tuple[Law[TokenSelector], ...] = (
    it_is_a_selector,
    the_plan_is_a_pruning,
    the_budget_is_kept,
    budgets_are_exact,
    keeping_all_changes_nothing,
    the_same_bits_give_the_same_plan,
    a_row_is_decided_on_its_own,
    nothing_is_changed,
    it_can_be_written_down,
)
