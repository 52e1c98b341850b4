# SPDX-License-Identifier: Apache-2.0
"""What selectors share: which scores stay under a budget, and which visual tokens they may cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tokenprune.budget import split_budget
from tokenprune.errors import InvalidValueError
from tokenprune.messages import not_one_of, shown

Selection = Callable[[Tensor, Tensor, int], Tensor]
"""``(scores (N,), blocks (N,), count) -> (count,)`` sorted indices of the tokens that stay; ``count`` < N."""

MODALITIES = ("video", "image")


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


def check_modalities(modalities: Sequence[str]) -> tuple[str, ...]:
    """``modalities`` as a tuple: ``"video"``, ``"image"`` or both, each once.

    Raises:
        InvalidValueError: empty, repeated or unknown entries, or one plain string (write ``("video",)``).
    """
    allowed = f"a non-empty tuple of {' and/or '.join(map(repr, MODALITIES))}, each once"
    if isinstance(modalities, str) or not isinstance(modalities, Sequence):
        raise InvalidValueError(f"modalities must be {allowed}, for example ('video',), got {shown(modalities)}")
    if not modalities or any(m not in MODALITIES for m in modalities) or len(set(modalities)) < len(modalities):
        raise InvalidValueError(f"modalities must be {allowed}, got {shown(tuple(modalities))}")
    return tuple(modalities)


def _best_first(scores: Tensor) -> Tensor:
    return torch.argsort(scores, descending=True, stable=True)
