# SPDX-License-Identifier: Apache-2.0
"""The laws of plans."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from oracles.plans import chains, columns, plans
from torch import Tensor

from tokenprune.errors import PlanError
from tokenprune.plan import TokenPlan

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def features(rows: int, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(rows, *shape, generator=torch.Generator().manual_seed(rows), dtype=torch.float64).to(dtype)


def same(one: TokenPlan, other: TokenPlan) -> bool:
    """Equal in what a plan does: weights are compared as fractions of their group's."""
    return (
        torch.equal(one.anchors, other.anchors)
        and torch.equal(one.assign, other.assign)
        and torch.allclose(fractions(one), fractions(other), rtol=1e-6, atol=0)
    )


def fractions(plan: TokenPlan) -> Tensor:
    weights = torch.ones(plan.total) if plan.weights is None else plan.weights
    mass = slow_sum(plan, weights)
    return torch.tensor([w / mass[a] if a >= 0 else -1.0 for w, a in zip(weights.tolist(), plan.assign.tolist())])


def slow_sum(plan: TokenPlan, x: Tensor) -> Tensor:
    sums = [0.0] * plan.kept
    for value, place in zip(x.tolist(), plan.assign.tolist()):
        if place >= 0:
            sums[place] += value
    return torch.tensor(sums, dtype=x.dtype)


def slow_mix(plan: TokenPlan, x: Tensor) -> Tensor:
    rows: list[Tensor] = []
    for place in range(plan.kept):
        members = [index for index, where in enumerate(plan.assign.tolist()) if where == place]
        weights = [1.0 if plan.weights is None else float(plan.weights[index]) for index in members]
        total = sum(weight * x[index].double() for weight, index in zip(weights, members))
        rows.append(x[members[0]].double() if len(members) == 1 else torch.as_tensor(total / sum(weights)))
    return torch.stack(rows) if rows else x[:0].double()


@given(plans(), st.sampled_from(DTYPES), st.sampled_from([(), (3,), (2, 3)]))
def test_mix_is_the_weighted_mean(plan: TokenPlan, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x = features(plan.total, *shape, dtype=dtype)
    mixed = plan.mix(x)
    assert mixed.dtype == dtype
    assert mixed.shape == (plan.kept, *shape)
    # Computed in fp32 or better, rounded once: half a unit in the last place, and fp32's own errors for fp32.
    tolerance = torch.finfo(dtype).eps * (4 if dtype in (torch.float32, torch.float64) else 0.51)
    torch.testing.assert_close(
        mixed.double(), slow_mix(plan, x), rtol=tolerance, atol=8 * torch.finfo(torch.float32).eps
    )


@given(plans(), st.sampled_from(DTYPES))
def test_a_token_alone_passes_bit_for_bit(plan: TokenPlan, dtype: torch.dtype) -> None:
    odd = [0.1, -0.0, float("inf"), 1e-40, float("nan")]
    x = torch.tensor([odd[index % len(odd)] for index in range(plan.total)], dtype=torch.float64).to(dtype).unsqueeze(1)
    alone = torch.bincount(plan.assign + 1, minlength=plan.kept + 1)[1:] == 1
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    assert torch.equal(plan.mix(x)[alone].view(bits), x[plan.anchors][alone].view(bits))


def test_fp64_is_not_rounded_to_fp32() -> None:
    plan = TokenPlan(torch.tensor([0]), torch.tensor([0, 0]))
    assert plan.mix(torch.tensor([1.0, 1.0 + 2**-40], dtype=torch.float64)).item() == 1.0 + 2**-41


def test_many_bf16_tokens_are_summed_in_fp32() -> None:
    plan = TokenPlan(torch.tensor([0]), torch.zeros(1000, dtype=torch.int64))
    x = torch.full((1000, 1), 1.0078125, dtype=torch.bfloat16)  # a sum in bf16 would stop growing at 256
    assert torch.equal(plan.mix(x), x[:1])


def test_a_group_of_tiny_weights_is_not_lost_beside_a_heavy_one() -> None:
    weights = torch.tensor([1e12, 1e12, 1e-12, 3e-12])
    plan = TokenPlan(torch.tensor([0, 2]), torch.tensor([0, 0, 1, 1]), weights).validate()
    torch.testing.assert_close(plan.mix(torch.tensor([1.0, 3.0, 4.0, 8.0])), torch.tensor([2.0, 7.0]))


def test_one_groups_infinity_does_not_reach_another() -> None:
    plan = TokenPlan(torch.tensor([0, 2]), torch.tensor([0, 0, 1, 1]))
    x = torch.tensor([float("inf"), 1.0, 2.0, 4.0])
    assert plan.mix(x).tolist() == [float("inf"), 3.0]
    assert plan.sum(x).tolist() == [float("inf"), 6.0]


def test_integers_cannot_be_mixed() -> None:
    with pytest.raises(PlanError, match=r"only floating-point tensors can be mixed, got torch.int64"):
        TokenPlan.keeping(torch.tensor([0]), 2).mix(torch.tensor([1, 2]))


@given(plans())
def test_pick_takes_the_anchors_rows(plan: TokenPlan) -> None:
    x = features(plan.total, 4)
    assert plan.pick(x).tolist() == [x[anchor].tolist() for anchor in plan.anchors.tolist()]
    assert torch.equal(plan.pick(x.T, dim=1), plan.pick(x).T)
    assert torch.equal(plan.pick(x.T, dim=-1), plan.pick(x).T)


@given(plans(), st.sampled_from([torch.int64, torch.int32, torch.float32]))
def test_sum_adds_what_was_merged(plan: TokenPlan, dtype: torch.dtype) -> None:
    x = torch.arange(1, plan.total + 1).to(dtype)
    assert plan.sum(x).dtype == dtype
    assert torch.equal(plan.sum(x), slow_sum(plan, x))


@given(plans())
def test_sizes_sum_to_what_was_not_dropped(plan: TokenPlan) -> None:
    sizes = plan.sum(torch.ones(plan.total, dtype=torch.int64))
    assert int(sizes.sum()) == int((plan.assign >= 0).sum())
    assert bool((sizes >= 1).all())


@given(st.integers(0, 9))
def test_the_identity_hands_back_the_very_tensor(total: int) -> None:
    plan, x = TokenPlan.identity(total).validate(), features(total, 2)
    assert plan.is_identity
    assert plan.mix(x) is x
    assert plan.pick(x) is x
    assert plan.sum(x[:, 0]).equal(x[:, 0])


@given(plans())
def test_the_identity_is_neutral(plan: TokenPlan) -> None:
    for composed in (plan.then(TokenPlan.identity(plan.kept)), TokenPlan.identity(plan.total).then(plan)):
        assert same(composed, plan)
        assert (composed.blocks is None) == (plan.blocks is None)
        assert composed.blocks is None or plan.blocks is None or torch.equal(composed.blocks, plan.blocks)


@given(chains(3))
def test_composing_is_associative(chain: list[TokenPlan]) -> None:
    one, two, three = chain
    left, right = one.then(two).then(three), one.then(two.then(three))
    assert same(left.validate(), right.validate())
    assert (left.blocks is None) == (right.blocks is None)
    assert left.blocks is None or right.blocks is None or torch.equal(left.blocks, right.blocks)


@given(chains(2))
def test_a_composed_plan_picks_and_sums_as_the_two(chain: list[TokenPlan]) -> None:
    one, two = chain
    x = torch.arange(one.total) ** 3
    assert torch.equal(one.then(two).pick(x), two.pick(one.pick(x)))
    assert torch.equal(one.then(two).sum(x), two.sum(one.sum(x)))


@given(chains(2))
def test_a_composed_plan_mixes_as_the_two_weighted_by_mass(chain: list[TokenPlan]) -> None:
    one, two = chain
    mass = one.sum(torch.ones(one.total) if one.weights is None else one.weights)
    weighted = dataclasses.replace(two, weights=mass if two.weights is None else mass * two.weights)
    x = features(one.total, 3)
    torch.testing.assert_close(one.then(two).mix(x), weighted.mix(one.mix(x)), rtol=1e-5, atol=1e-6)


def test_a_mean_of_means_is_another_operator() -> None:
    one = TokenPlan(torch.tensor([0, 2]), torch.tensor([0, 0, 1]))
    two = TokenPlan(torch.tensor([0]), torch.tensor([0, 0]))
    x = torch.tensor([0.0, 0.0, 3.0])
    assert one.then(two).mix(x).item() == 1.0
    assert two.mix(one.mix(x)).item() == 1.5


def test_blocks_follow_their_tokens() -> None:
    one = TokenPlan(torch.tensor([0, 2, 3]), torch.tensor([0, 0, 1, 2]), blocks=torch.tensor([7, 8, 9]))
    kept = TokenPlan.keeping(torch.tensor([0, 2]), 3)
    assert one.then(kept).blocks is not None
    assert one.then(kept).blocks.tolist() == [7, 9]  # type: ignore[union-attr]
    relabelled = dataclasses.replace(kept, blocks=torch.tensor([1, 2]))
    assert one.then(relabelled).blocks.tolist() == [1, 2]  # type: ignore[union-attr]


@given(plans(), st.data())
def test_lifting_leaves_everything_else_alone(plan: TokenPlan, data: st.DataObject) -> None:
    where, length = data.draw(columns(plan.total))
    lifted = plan.lift(where, length).validate()
    visual = set(where.tolist())
    dropped_or_merged = visual - set(where[plan.anchors].tolist())
    assert lifted.anchors.tolist() == [column for column in range(length) if column not in dropped_or_merged]
    for column in set(range(length)) - visual:
        assert lifted.anchors[lifted.assign[column]] == column
        assert (lifted.assign == lifted.assign[column]).sum() == 1
    row = features(length, 2)
    visual_places = [place for place, column in enumerate(lifted.anchors.tolist()) if column in visual]
    assert torch.equal(lifted.mix(row)[visual_places], plan.mix(row[where]))


@given(chains(2), st.data())
def test_lifting_commutes_with_composing(chain: list[TokenPlan], data: st.DataObject) -> None:
    one, two = chain
    where, length = data.draw(columns(one.total))
    lifted = one.lift(where, length)
    then_where = torch.searchsorted(lifted.anchors, where[one.anchors])
    assert same(lifted.then(two.lift(then_where, lifted.kept)), one.then(two).lift(where, length))


@given(plans())
def test_a_pruning_is_a_plan_in_which_only_anchors_are_assigned(plan: TokenPlan) -> None:
    pruned = TokenPlan.keeping(plan.anchors, plan.total).validate()
    assert pruned.anchors[pruned.assign[pruned.assign >= 0]].equal(plan.anchors)
    assert pruned.assign.ge(0).nonzero().flatten().equal(plan.anchors)


VALID = TokenPlan(torch.tensor([1, 3]), torch.tensor([0, 0, -1, 1]), torch.tensor([1.0, 1.0, 1.0, 1.0]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"anchors": torch.tensor([3, 1])}, "strictly increasing"),
        ({"anchors": torch.tensor([1, 1])}, "strictly increasing"),
        ({"anchors": torch.tensor([1, 4])}, "strictly increasing"),
        ({"anchors": torch.tensor([-1, 3])}, "strictly increasing"),
        ({"anchors": torch.tensor([0, 1])}, "its own place"),
        ({"assign": torch.tensor([1, 0, -1, 0])}, "its own place"),
        ({"assign": torch.tensor([2, 0, -1, 1])}, "places in"),
        ({"assign": torch.tensor([-2, 0, -1, 1])}, "places in"),
        ({"weights": torch.tensor([-0.5, 1.0, 1.0, 1.0])}, "not negative"),
        ({"weights": torch.tensor([float("nan"), 1.0, 1.0, 1.0])}, "finite"),
        ({"weights": torch.tensor([1.0, 1.0, float("inf"), 1.0])}, "finite"),
        ({"weights": torch.tensor([1.0, 1.0, 1.0, 0.0])}, "sum to zero"),
    ],
)
def test_validate_finds_every_broken_law(change: dict[str, Tensor], message: str) -> None:
    VALID.validate()
    broken = dataclasses.replace(VALID, **change)
    with pytest.raises(PlanError, match=message):
        broken.validate()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"anchors": torch.tensor([1.0, 3.0])}, "anchors must be a 1-D int64"),
        ({"anchors": torch.tensor([[1, 3]])}, "anchors must be a 1-D int64"),
        ({"assign": torch.tensor([0, 0, -1, 1], dtype=torch.int32)}, "assign must be a 1-D int64"),
        ({"anchors": torch.arange(5)}, "cannot keep 5 anchors"),
        ({"weights": torch.ones(3)}, "weights must have shape"),
        ({"weights": torch.ones(4, dtype=torch.bool)}, "weights must be floating point"),
        ({"blocks": torch.zeros(3, dtype=torch.int64)}, "blocks must have shape"),
        ({"blocks": torch.zeros(2)}, "blocks must be int64"),
    ],
)
def test_shapes_and_dtypes_are_checked_at_once(change: dict[str, Tensor], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        dataclasses.replace(VALID, **change)


def test_a_plan_of_another_length_is_refused() -> None:
    for use in (VALID.mix, VALID.pick, VALID.sum):
        with pytest.raises(PlanError, match="a plan over 4 tokens cannot be applied to 5"):
            use(torch.ones(5))
    with pytest.raises(PlanError, match="a plan over 3 tokens cannot follow one that keeps 2"):
        VALID.then(TokenPlan.identity(3))
    with pytest.raises(PlanError, match="a plan over 4 tokens cannot be lifted to 3 columns"):
        VALID.lift(torch.arange(3), 9)


@given(plans())
def test_inputs_are_not_changed(plan: TokenPlan) -> None:
    assume(plan.total)
    x, sizes = features(plan.total, 2), torch.ones(plan.total, dtype=torch.int64)
    before = [t.clone() for t in (x, sizes, plan.anchors, plan.assign)]
    (
        plan.mix(x),
        plan.pick(x),
        plan.sum(sizes),
        plan.then(TokenPlan.identity(plan.kept)),
        plan.lift(plan.assign.argsort().sort().values, plan.total),
    )
    assert all(torch.equal(was, now) for was, now in zip(before, (x, sizes, plan.anchors, plan.assign)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@given(plans(), st.sampled_from(DTYPES))
def test_the_device_mixes_as_the_cpu_does(plan: TokenPlan, dtype: torch.dtype) -> None:
    x = features(plan.total, 3, dtype=dtype)
    there = TokenPlan(*(t if t is None else t.cuda() for t in (plan.anchors, plan.assign, plan.weights, plan.blocks)))
    torch.testing.assert_close(there.mix(x.cuda()).cpu(), plan.mix(x))
    assert torch.equal(there.sum(torch.arange(plan.total).cuda()).cpu(), plan.sum(torch.arange(plan.total)))
