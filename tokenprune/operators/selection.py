# SPDX-License-Identifier: Apache-2.0
"""What operators share that rank scores: which of them stay under a budget."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tokenprune.budget import split_budget
from tokenprune.errors import InvalidValueError
from tokenprune.messages import not_one_of

Selection = Callable[[Tensor, Tensor, int], Tensor]
"""``(scores (N,), blocks (N,), count) -> (count,)`` sorted indices of the tokens that stay; ``count`` < N."""


def keep_best(scores: Tensor, blocks: Tensor, count: int) -> Tensor:
    """The ``count`` highest scores, wherever they are; of equal scores the lower index."""
    return _best_first(scores)[:count].sort().values


def keep_best_per_block(scores: Tensor, blocks: Tensor, count: int) -> Tensor:
    """The highest scores of each block, ``count`` in all, shared out in proportion to the blocks' sizes.

    Blocks count in the order of their labels: of equal remainders the lower label gets the token.
    """
    _, member, sizes = torch.unique(blocks, return_inverse=True, return_counts=True)
    sizes_here = [int(size) for size in sizes.tolist()]
    shares = torch.tensor(split_budget(sizes_here, sizes_here, count), device=blocks.device)
    order = _best_first(scores)
    order = order[torch.argsort(member[order], stable=True)]  # block by block, each best first
    block = member[order]
    rank = torch.arange(len(order), device=order.device) - (sizes.cumsum(0) - sizes)[block]
    return order[rank < shares[block]].sort().values


SELECTIONS: dict[str, Selection] = {"global": keep_best, "stratified": keep_best_per_block}


def check_selection(name: str) -> None:
    """Raise :class:`InvalidValueError` unless ``name`` is one of :data:`SELECTIONS`."""
    if not isinstance(name, str) or name not in SELECTIONS:
        raise InvalidValueError(not_one_of("select", SELECTIONS, name))


def _best_first(scores: Tensor) -> Tensor:
    return torch.argsort(scores, descending=True, stable=True)
