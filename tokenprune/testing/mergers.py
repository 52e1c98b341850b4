# SPDX-License-Identifier: Apache-2.0
"""The laws of operators before the LLM."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import strategies as st
from torch import Tensor

from tokenprune.errors import TokenPruneError
from tokenprune.messages import shown
from tokenprune.protocols import TokenMerger, TokenSelector
from tokenprune.testing.laws import Law, check_all, law, require
from tokenprune.testing.same import (
    exact_count,
    has_budget,
    require_json,
    require_lawful,
    same_bits,
    same_plan,
    unchanged,
    whatever_the_surroundings,
    with_budget,
)
from tokenprune.testing.strategies import token_plans, visual_tokens
from tokenprune.tokens import VisualTokens

RATIOS = st.sampled_from([0.1, 0.25, 0.3, 1 / 3, 0.5, 0.7, 0.99, 1e-6, 1.0])


def check_merger(merger: TokenMerger, *, max_examples: int = 20) -> list[str]:
    """Hold a merger to every law of mergers that speaks about it.

    Args:
        merger: the operator; laws about budgets try others than its own, where it has ``keep_ratio`` and ``keep``.
        max_examples: generated videos a law.

    Returns:
        Names of the laws that were checked.

    Raises:
        LawBrokenError: a law does not hold; the message names it.
    """
    return check_all(MERGER_LAWS, merger, max_examples)


def reads_full_grid(merger: TokenMerger) -> bool:
    """Whether the merger must come first."""
    return bool(getattr(merger, "needs_full_grid", False))


@law(11)
def it_is_a_merger(merger: TokenMerger, data: st.DataObject) -> None:
    """A merger is an object (no class) with ``plan(tokens)``, and no selector; only the first may need the grid."""
    require(not isinstance(merger, type), f"{shown(merger)} is a class")
    require(isinstance(merger, TokenMerger), f"{type(merger).__name__} has no plan(tokens)")
    require(not isinstance(merger, TokenSelector), f"{type(merger).__name__} is a selector as well")


@law(3)
def the_plan_is_valid(merger: TokenMerger, data: st.DataObject) -> None:
    """Anchors are sorted and unique, every token is in one place or dropped, and at least one goes on."""
    tokens = data.draw(visual_tokens())
    require_lawful(merger.plan(tokens), len(tokens), tokens.features.device)


@law(3)
def every_token_is_in_one_place(merger: TokenMerger, data: st.DataObject) -> None:
    """After the plan each original token is in exactly one place of ``sources``, or dropped; sizes count them."""
    tokens = data.draw(visual_tokens())
    merged = merger.plan(tokens).apply(tokens)
    sources, sizes, places = merged.sources, _present(merged.sizes), _present(merged.places)
    together = [int(i) for group in sources for i in group]
    require(len(set(together)) == len(together), "a token is in two places")
    require([len(group) for group in sources] == sizes.tolist(), "sizes do not count the tokens merged")
    require(all(int(a) in group.tolist() for a, group in zip(places, sources)), "an anchor is not in its own place")
    require(bool(torch.isfinite(merged.features).all()), "finite features became infinite or NaN")


@law(7)
def the_same_bits_give_the_same_plan(merger: TokenMerger, data: st.DataObject) -> None:
    """Decisions hang on the tokens alone: no random numbers, autocast, gradients or inference mode."""
    tokens = data.draw(visual_tokens())
    whatever_the_surroundings(lambda: merger.plan(_copy(tokens)), merger.plan(tokens))
    tracked = replace(tokens, features=tokens.features.clone().requires_grad_())
    require(same_plan(merger.plan(tracked), merger.plan(tokens)), "with gradients the plan is another one")


@law(6)
def a_video_is_decided_on_its_own(merger: TokenMerger, data: st.DataObject) -> None:
    """The plan of a video is the same whatever other videos came before it, and however its memory is laid out."""
    tokens, other = data.draw(visual_tokens()), data.draw(visual_tokens())
    expected = merger.plan(tokens)
    merger.plan(other)
    require(same_plan(merger.plan(tokens), expected), "after another video the plan is another one")
    wider = torch.cat([tokens.features, tokens.features], dim=1)[:, : tokens.features.shape[1]]
    columns_first = tokens.features.t().contiguous().t()
    for features in (wider, columns_first):
        same = same_plan(merger.plan(replace(tokens, features=features)), expected)
        require(same, "laid out differently in memory, the same features gave another plan")


@law(10)
def nothing_is_changed(merger: TokenMerger, data: st.DataObject) -> None:
    """The tokens, the merger itself and the global random generator are left as they were."""
    tokens = data.draw(visual_tokens())
    names = ("features", "sizes", "membership", "places", "blocks")
    with unchanged(names, [getattr(tokens, name) for name in names], merger):
        merger.plan(tokens)


@law(8, applies=has_budget)
def budgets_are_exact(merger: TokenMerger, data: st.DataObject) -> None:
    """``keep_ratio`` leaves ``ceil(keep_ratio * n)`` tokens and ``keep`` that many, capped at n, at least 1."""
    tokens, ratio = data.draw(visual_tokens()), data.draw(RATIOS)
    keep = data.draw(st.integers(1, len(tokens) + 1))
    for keep_ratio, count in ((ratio, None), (None, keep)):
        kept = with_budget(merger, keep_ratio, count).plan(tokens).kept
        wanted = exact_count(keep_ratio, count, len(tokens))
        require(kept == wanted, f"keep_ratio={keep_ratio}, keep={count} left {kept} of {len(tokens)}, not {wanted}")


@law(1, applies=has_budget)
def keeping_all_changes_nothing(merger: TokenMerger, data: st.DataObject) -> None:
    """A budget for every token gives the identity, and the identity gives the same features, bit for bit."""
    tokens = data.draw(visual_tokens())
    for keep_ratio, keep in ((1.0, None), (None, len(tokens)), (None, len(tokens) + 7)):
        plan = with_budget(merger, keep_ratio, keep).plan(tokens)
        require(plan.is_identity, f"keep_ratio={keep_ratio}, keep={keep} is not the identity over {len(tokens)}")
        require(same_bits(plan.apply(tokens).features, tokens.features), "keeping all changed a feature")


@law(3, applies=lambda merger: not reads_full_grid(merger))
def it_may_follow_another_merger(merger: TokenMerger, data: st.DataObject) -> None:
    """A merger that does not need the full grid gives a valid plan over tokens merged before."""
    tokens = data.draw(visual_tokens())
    fewer = data.draw(token_plans(len(tokens))).apply(tokens)
    require_lawful(merger.plan(fewer), len(fewer), fewer.features.device)


@law(11, applies=reads_full_grid)
def a_broken_grid_is_refused(merger: TokenMerger, data: st.DataObject) -> None:
    """A merger that needs the full grid refuses tokens merged before, by a named error."""
    tokens = data.draw(visual_tokens(grid=st.just((2, 2, 2))))
    fewer = data.draw(token_plans(8).filter(lambda plan: not plan.is_identity)).apply(tokens)
    try:
        merger.plan(fewer)
    except TokenPruneError:
        return
    require(False, f"{len(fewer)} of 8 tokens were accepted")


@law(10)
def it_can_be_written_down(merger: TokenMerger, data: st.DataObject) -> None:
    """A pipeline with the merger can be written as JSON; read again, it is equal."""
    require_json(merger)


MERGER_LAWS: tuple[Law[TokenMerger], ...] = (
    it_is_a_merger,
    the_plan_is_valid,
    every_token_is_in_one_place,
    the_same_bits_give_the_same_plan,
    a_video_is_decided_on_its_own,
    nothing_is_changed,
    budgets_are_exact,
    keeping_all_changes_nothing,
    it_may_follow_another_merger,
    a_broken_grid_is_refused,
    it_can_be_written_down,
)


def _copy(tokens: VisualTokens) -> VisualTokens:
    return VisualTokens(tokens.features.clone(), tokens.grid)


def _present(tensor: Tensor | None) -> Tensor:
    if tensor is None:
        raise AssertionError("the merged tokens lost their sizes or places")
    return tensor
