# SPDX-License-Identifier: Apache-2.0
"""The laws of operators, at whatever site they act."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from tokenprune.attention_view import AttentionView
from tokenprune.errors import TokenPruneError
from tokenprune.operator import AFTER_LAYER, AFTER_PREFILL, Operator, layer_of, modalities_of, needs_of, site_of
from tokenprune.pipeline import Pipeline
from tokenprune.plan import TokenPlan
from tokenprune.testing.laws import Law, check_all, law, require
from tokenprune.testing.same import (
    exact_count,
    has_budget,
    require_json,
    require_lawful,
    same_bits,
    same_plans,
    unchanged,
    whatever_the_surroundings,
    with_budget,
)
from tokenprune.testing.strategies import operator_tokens, token_plans
from tokenprune.tokens import VisualTokens

RATIOS = st.sampled_from([0.1, 0.25, 0.3, 1 / 3, 0.5, 0.7, 0.99, 1e-6, 1.0])


def check_operator(operator: Operator, *, max_examples: int = 20) -> list[str]:
    """Hold an operator to every law of operators that speaks about it.

    >>> len(check_operator(tp.UniformSelect(keep_ratio=0.5), max_examples=2))
    11

    Args:
        operator: the operator; laws about budgets try others than its own, where it has ``keep_ratio`` and ``keep``.
        max_examples: generated examples a law.

    Returns:
        Names of the laws that were checked.

    Raises:
        LawBrokenError: a law does not hold; the message names it.
    """
    return check_all(OPERATOR_LAWS, operator, max_examples)


def reads_full_grid(operator: Operator) -> bool:
    """Whether the operator must come first."""
    return bool(getattr(operator, "needs_full_grid", False))


def may_follow(operator: Operator) -> bool:
    """Whether the operator may be shown tokens that another has merged."""
    return not reads_full_grid(operator)


@law(11)
def it_is_an_operator(operator: Operator, data: st.DataObject) -> None:
    """An operator is an object (no class) with ``plan(tokens)``, whose site, layer, needs and modalities are known."""
    require(not isinstance(operator, type), f"{operator!r} is a class")
    require(isinstance(operator, Operator), f"{type(operator).__name__} has no plan(tokens)")
    if site_of(operator) == AFTER_LAYER:
        layer_of(operator)
    needs_of(operator)
    modalities_of(operator)
    Pipeline([operator])


@law(3)
def the_plan_is_valid(operator: Operator, data: st.DataObject) -> None:
    """Anchors are sorted and unique, every token is in one place or dropped, and at least one goes on."""
    tokens = _tokens(operator, data)
    plans = _plans(operator, tokens)
    for plan in plans:
        require_lawful(plan, len(tokens), tokens.features.device)
    require(len({plan.kept for plan in plans}) == 1, "not all heads keep equally many tokens")


@law(3)
def every_token_is_in_one_place(operator: Operator, data: st.DataObject) -> None:
    """After the plan each original token is in exactly one place of ``sources``, or dropped; sizes count them."""
    tokens = _tokens(operator, data)
    for plan in _plans(operator, tokens):
        merged = plan.apply(tokens)
        sources, sizes, places = merged.sources, _present(merged.sizes), _present(merged.places)
        together = [int(i) for group in sources for i in group]
        require(len(set(together)) == len(together), "a token is in two places")
        require([len(group) for group in sources] == sizes.tolist(), "sizes do not count the tokens merged")
        require(all(int(a) in group.tolist() for a, group in zip(places, sources)), "an anchor is not in its own place")
        require(bool(torch.isfinite(merged.features).all()), "finite features became infinite or NaN")


@law(7)
def the_same_bits_give_the_same_plan(operator: Operator, data: st.DataObject) -> None:
    """Decisions hang on the tokens alone: no random numbers, autocast, gradients or inference mode."""
    tokens = _tokens(operator, data)
    expected = _plans(operator, tokens)
    whatever_the_surroundings(lambda: _plans(operator, _copy(tokens)), expected)
    tracked = replace(tokens, features=tokens.features.clone().requires_grad_())
    require(same_plans(_plans(operator, tracked), expected), "with gradients the plan is another one")


@law(6)
def tokens_are_decided_on_their_own(operator: Operator, data: st.DataObject) -> None:
    """The plan is the same whatever other tokens came before, and however their memory is laid out."""
    tokens, other = _tokens(operator, data), _tokens(operator, data)
    expected = _plans(operator, tokens)
    operator.plan(other)
    require(same_plans(_plans(operator, tokens), expected), "after other tokens the plan is another one")
    wider = torch.cat([tokens.features, tokens.features], dim=1)[:, : tokens.features.shape[1]]
    columns_first = tokens.features.t().contiguous().t()
    for features in (wider, columns_first):
        same = same_plans(_plans(operator, replace(tokens, features=features)), expected)
        require(same, "laid out differently in memory, the same features gave another plan")


@law(10)
def nothing_is_changed(operator: Operator, data: st.DataObject) -> None:
    """The tokens, the operator itself and the global random generator are left as they were."""
    tokens = _tokens(operator, data)
    names = ["features", "sizes", "membership", "places", "blocks"]
    values: list[Tensor | None] = [getattr(tokens, name) for name in names]
    for name, value in tokens.signals.items():
        parts = [value] if isinstance(value, Tensor) else _read_of(value)
        names += [name] * len(parts)
        values += parts
    with unchanged(names, values, operator):
        operator.plan(tokens)


@law(8)
def the_budget_is_kept(operator: Operator, data: st.DataObject) -> None:
    """Where ``budget(n)`` names a number, so many tokens stay; the runtime relies on it."""
    tokens, budget = _tokens(operator, data), getattr(operator, "budget", None)
    wanted = None if budget is None else budget(len(tokens))
    kept = _plans(operator, tokens)[0].kept
    require(wanted in (None, kept), f"budget {budget} means {wanted} of {len(tokens)}, {kept} were kept")


@law(8, applies=has_budget)
def budgets_are_exact(operator: Operator, data: st.DataObject) -> None:
    """``keep_ratio`` leaves ``ceil(keep_ratio * n)`` tokens and ``keep`` that many, capped at n, at least 1."""
    tokens, ratio = _tokens(operator, data), data.draw(RATIOS)
    keep = data.draw(st.integers(1, len(tokens) + 1))
    for keep_ratio, count in ((ratio, None), (None, keep)):
        kept = _plans(with_budget(operator, keep_ratio, count), tokens)[0].kept
        wanted = exact_count(keep_ratio, count, len(tokens))
        require(kept == wanted, f"keep_ratio={keep_ratio}, keep={count} left {kept} of {len(tokens)}, not {wanted}")


@law(1, applies=has_budget)
def keeping_all_changes_nothing(operator: Operator, data: st.DataObject) -> None:
    """A budget for every token gives the identity, and the identity gives the same features, bit for bit."""
    tokens = _tokens(operator, data)
    for keep_ratio, keep in ((1.0, None), (None, len(tokens)), (None, len(tokens) + 7)):
        for plan in _plans(with_budget(operator, keep_ratio, keep), tokens):
            require(plan.is_identity, f"keep_ratio={keep_ratio}, keep={keep} is not the identity over {len(tokens)}")
            require(same_bits(plan.apply(tokens).features, tokens.features), "keeping all changed a feature")


@law(3, applies=may_follow)
def it_may_follow_another_operator(operator: Operator, data: st.DataObject) -> None:
    """An operator that does not need the full grid gives a valid plan over tokens merged before."""
    tokens = _tokens(operator, data)
    fewer = data.draw(token_plans(len(tokens))).apply(replace(tokens, signals={}))
    shown = data.draw(operator_tokens(_given(operator), count=len(fewer), dim=fewer.features.shape[1]))
    again = replace(fewer, signals=shown.signals)
    for plan in _plans(operator, again):
        require_lawful(plan, len(again), again.features.device)


@law(11, applies=reads_full_grid)
def a_broken_grid_is_refused(operator: Operator, data: st.DataObject) -> None:
    """An operator that needs the full grid refuses tokens merged before, by a named error."""
    tokens = data.draw(operator_tokens(needs_of(operator), grid=st.just((2, 2, 2))))
    fewer = data.draw(token_plans(8).filter(lambda plan: plan.kept < plan.total)).apply(tokens)
    try:
        operator.plan(fewer)
    except TokenPruneError:
        return
    require(False, f"{len(fewer)} of 8 tokens were accepted")


@law(10)
def it_can_be_written_down(operator: Operator, data: st.DataObject) -> None:
    """A pipeline with the operator can be written as JSON; read again, it is equal."""
    require_json(operator)


OPERATOR_LAWS: tuple[Law[Operator], ...] = (
    it_is_an_operator,
    the_plan_is_valid,
    every_token_is_in_one_place,
    the_same_bits_give_the_same_plan,
    tokens_are_decided_on_their_own,
    nothing_is_changed,
    the_budget_is_kept,
    budgets_are_exact,
    keeping_all_changes_nothing,
    it_may_follow_another_operator,
    a_broken_grid_is_refused,
    it_can_be_written_down,
)


def _given(operator: Operator) -> tuple[str, ...]:
    """The signals that the operator is shown: those it needs, and on the cache its keys and values."""
    needs = needs_of(operator)
    return needs if site_of(operator) != AFTER_PREFILL else tuple(dict.fromkeys((*needs, "attention")))


def _tokens(operator: Operator, data: st.DataObject) -> VisualTokens:
    return data.draw(operator_tokens(_given(operator)))


def _plans(operator: Operator, tokens: VisualTokens) -> list[TokenPlan]:
    """What the operator decides: one plan; on the cache perhaps one for each key-value head."""
    found: Any = operator.plan(tokens)
    many = site_of(operator) == AFTER_PREFILL and isinstance(found, Sequence)
    plans: list[Any] = list(found) if many else [found]
    require(bool(plans), "expected a plan for each key-value head, got none")
    for plan in plans:
        require(isinstance(plan, TokenPlan), f"expected a TokenPlan, got {type(plan).__name__}")
    return plans


def _read_of(view: AttentionView) -> list[Tensor]:
    """What the layer and its neighbours show."""
    around = [part for n in (-1, 0, 1) for part in (view.queries(layer=n), view.keys(layer=n))]
    return [*around, view.queries(False), view.values(), view.hidden(), view.hidden(layer=-1)]


def _copy(tokens: VisualTokens) -> VisualTokens:
    return replace(tokens, features=tokens.features.clone())


def _present(tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise AssertionError("the merged tokens lost their sizes or places")
    return tensor
