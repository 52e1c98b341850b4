# SPDX-License-Identifier: Apache-2.0
"""How what travels with the tokens follows a plan: each thing is declared once, with its rule."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from tokenprune.errors import InvalidValueError
from tokenprune.messages import shown
from tokenprune.plan import TokenPlan

GATHER, MERGE, SUM = "gather", "merge", "sum"
"""A kept token's own entry (positions, masks, ids); the mix of what was merged into it, as its features are; the sum
of what was merged into it (sizes, attention)."""


@dataclass(frozen=True)
class Carried:
    """Something that travels with the tokens of a batch, and by which rule.

    >>> Carried("position_embeddings", token_dim=-2, batch_dim=-3)
    Carried(name='position_embeddings', rule='gather', token_dim=-2, batch_dim=-3, packed_by=None)

    Args:
        name: what the decoder and its layers call it.
        rule: :data:`GATHER` or :data:`MERGE`.
        token_dim: the dimension that counts tokens.
        batch_dim: the one that counts rows; it may be of size 1, for all rows.
        packed_by: it is a list of ``(n, D)`` features, the i-th of which the decoder adds to its hidden states after
            layer i, at the n True places of the ``(B, S)`` mask of this name (deepstack); None: it is a tensor, or a
            tuple of tensors, that has a place for every token.

    Raises:
        InvalidValueError: another rule, or a merge that does not look like features.
    """

    name: str
    rule: str = GATHER
    token_dim: int = 1
    batch_dim: int = 0
    packed_by: str | None = None

    def __post_init__(self) -> None:
        if self.rule not in (GATHER, MERGE):
            raise InvalidValueError(f"{self.name} must travel by {GATHER!r} or {MERGE!r}, got {shown(self.rule)}")
        if self.rule == MERGE and (self.batch_dim, self.token_dim) != (0, 1):
            raise InvalidValueError(f"{self.name} cannot be merged: only what is (B, S, ...) is mixed as features are")


def follow(x: Tensor, plan: TokenPlan, rule: str) -> Tensor:
    """What is left of ``x`` ``(N, ...)``, one entry a token, when its tokens follow a plan: ``(K, ...)``.

    >>> plan = tp.TokenPlan(torch.tensor([0, 2]), torch.tensor([0, 0, 1]))
    >>> follow(torch.tensor([1.0, 3.0, 5.0]), plan, "merge").tolist()
    [2.0, 5.0]
    """
    return {GATHER: plan.pick, MERGE: plan.mix, SUM: plan.sum}[rule](x)
