# SPDX-License-Identifier: Apache-2.0
"""Bitwise comparison, copies, and watching whether something is changed or draws random numbers."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from fractions import Fraction
from math import ceil
from typing import Any, TypeVar

import torch
from torch import Tensor

from tokenprune.messages import shown
from tokenprune.operator import Operator
from tokenprune.pipeline import Pipeline
from tokenprune.plan import TokenPlan
from tokenprune.testing.laws import require

T = TypeVar("T")
Plans = Sequence[TokenPlan]
"""What one asking gave: one plan, or one for each key-value head."""


def same_bits(one: Tensor | None, other: Tensor | None) -> bool:
    """Equal shape, dtype and bits; NaN equals itself."""
    if one is None or other is None:
        return one is other
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.equal(one, other) or (
        torch.equal(one.isnan(), other.isnan()) and torch.equal(one.nan_to_num(), other.nan_to_num())
    )


def same_plans(some: Plans, others: Plans) -> bool:
    """Whether plans are equal, bit for bit."""
    parts = ("anchors", "assign", "weights", "blocks")
    return len(some) == len(others) and all(
        same_bits(getattr(one, part), getattr(other, part)) for one, other in zip(some, others) for part in parts
    )


@contextmanager
def unchanged(names: Sequence[str], tensors: Sequence[Tensor | None], operator: object) -> Generator[None]:
    """Inside, neither the tensors nor the operator may change, nor may the global generator move."""
    before = [None if tensor is None else tensor.clone() for tensor in tensors]
    state, attributes = torch.get_rng_state(), copy.deepcopy(vars(operator) if hasattr(operator, "__dict__") else {})
    yield
    for name, old, now in zip(names, before, tensors):
        require(same_bits(old, now), f"{name} was changed")
    require(torch.equal(state, torch.get_rng_state()), "the global random generator was moved")
    now = vars(operator) if hasattr(operator, "__dict__") else {}
    require(sorted(attributes) == sorted(now), f"{type(operator).__name__} gained or lost attributes")
    require(repr(attributes) == repr(now), f"{type(operator).__name__} changed itself: {attributes} became {now}")


def whatever_the_surroundings(decide: Callable[[], Plans], expected: Plans) -> None:
    """Require the same plan under other global random states, autocast, gradients and inference mode."""
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            require(same_plans(decide(), expected), "a second call on the same bits gave another plan")
    with torch.autocast("cpu", torch.bfloat16):
        require(same_plans(decide(), expected), "under autocast the plan is another one")
    with torch.inference_mode():
        require(same_plans(decide(), expected), "in inference mode the plan is another one")


def has_budget(operator: object) -> bool:
    """Whether the operator is a dataclass with ``keep_ratio`` and ``keep``."""
    if not is_dataclass(operator):
        return False
    return {"keep_ratio", "keep"} <= {field.name for field in fields(operator)}


def with_budget(operator: T, keep_ratio: float | None, keep: int | None) -> T:
    """The same operator with another budget."""
    return replace(operator, keep_ratio=keep_ratio, keep=keep)  # type: ignore[type-var]


def exact_count(keep_ratio: float | None, keep: int | None, total: int) -> int:
    """What a budget has to leave of ``total`` tokens."""
    wanted = keep if keep is not None else ceil(Fraction(str(keep_ratio)) * total)
    return max(1, min(wanted, total))


def require_lawful(plan: Any, total: int, device: torch.device) -> TokenPlan:
    """Require a valid plan over ``total`` tokens, on their device, that keeps at least one."""
    require(isinstance(plan, TokenPlan), f"expected a TokenPlan, got {type(plan).__name__}")
    require(plan.total == total, f"the plan is about {plan.total} tokens, there are {total}")
    require(plan.anchors.device == plan.assign.device == device, "the plan is not on its tokens' device")
    plan.validate()
    require(plan.kept >= 1, "no token is kept")
    return plan


def require_json(operator: Operator) -> None:
    """Require that a pipeline with the operator can be written, and read again where a plugin offers the operator."""
    from tokenprune.plugins import default_registry

    written = json.loads(json.dumps(Pipeline([operator]).to_dict(), allow_nan=False))
    if type(operator) in default_registry().operators.values():
        again = Pipeline.from_dict(written)
        require(
            again == Pipeline([operator]), f"written as JSON and read again, {shown(operator)} became {shown(again)}"
        )
