# SPDX-License-Identifier: Apache-2.0
"""Attention of the text rows on the visual tokens, read in pieces so that no large matrix ever exists.

A softmax needs only the log-sum-exp of each row and the logits of the columns that are asked for, so the keys are
never repeated over query heads and what lives at a time is bounded by :data:`SCORE_BYTES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import reduce

import torch
from torch import Tensor

from tokenprune.attention_view import AttentionView
from tokenprune.errors import InvalidValueError
from tokenprune.messages import not_one_of

SCORE_BYTES = 64 * 2**20
"""Most bytes of (heads x text rows x keys) alive at once, every temporary counted."""

KeyMask = Callable[[slice], Tensor]
"""``rows -> (r, L)`` or ``(1, L)`` bool: the keys over which the softmax of these text rows runs."""


def attention_scores(view: AttentionView, *, rotated: bool, allowed: KeyMask, head_reduction: str) -> Tensor:
    """``(N,)`` fp32: softmax probability of each visual column, largest over text rows, then reduced over heads.

    fp32 whatever the dtype of the view, autocast or not; no gradient, no host synchronisation. One query's line over
    all keys is the least that can be read; above some five million keys it exceeds :data:`SCORE_BYTES` on its own.

    Args:
        view: queries and keys of one layer, for one prompt row.
        rotated: read queries and keys with RoPE, or before it.
        allowed: which keys the softmax of a text row runs over; every text row must have one.
        head_reduction: name of one of :data:`HEAD_REDUCTIONS`.

    Raises:
        InvalidValueError: the view has no text row, or query heads are no multiple of the key heads.
    """
    with torch.no_grad():
        queries, keys = view.queries(rotated), view.keys(rotated)
        if queries.shape[1] == 0:
            raise InvalidValueError("attention scores need at least one text row after the visual tokens, got none")
        if queries.shape[0] % keys.shape[0] != 0:
            raise InvalidValueError(
                f"query heads must be a multiple of key heads, got {queries.shape[0]} and {keys.shape[0]}"
            )
        with torch.autocast(queries.device.type, enabled=False):
            return HEAD_REDUCTIONS[head_reduction](_read_heads(view, queries, keys, allowed))


def check_head_reduction(name: str) -> None:
    """Raise :class:`InvalidValueError` unless ``name`` is one of :data:`HEAD_REDUCTIONS`."""
    if not isinstance(name, str) or name not in HEAD_REDUCTIONS:
        raise InvalidValueError(not_one_of("head_reduction", HEAD_REDUCTIONS, name))


def piece_sizes(kv_heads: int, group: int, rows: int, keys: int, columns: int, head_dim: int) -> tuple[int, int, int]:
    """How many (key heads, query heads of each, text rows) are read at once within :data:`SCORE_BYTES`.

    All heads and as many rows as fit; where not even one row fits, one row and as many heads as do.
    """
    line = 4 * (keys + columns + 3 * head_dim)  # fp32 logits, those of the columns, the query and its copies
    mask = 3 * keys  # bool: causal, visible, hidden
    result = 4 * 4 * columns  # fp32 per head: best so far, new, larger of both, the reduction's last piece
    room = SCORE_BYTES - 8 * keys  # int64 places of the keys
    heads = kv_heads * group
    fitting_rows = (room - heads * result) // (heads * line + mask)
    if fitting_rows >= 1:
        return kv_heads, group, min(rows, fitting_rows)
    fitting_heads = max(1, (room - mask) // (line + result))
    group_step = min(group, fitting_heads)
    return min(kv_heads, fitting_heads // group_step), group_step, 1


def _read_heads(view: AttentionView, queries: Tensor, keys: Tensor, allowed: KeyMask) -> Iterator[Tensor]:
    """Piece by piece ``(h, N)`` probabilities of some heads, the largest over all text rows."""
    kv_heads, length, head_dim = keys.shape
    rows, columns = queries.shape[1], view.visual_columns
    grouped = queries.reshape(kv_heads, -1, rows, head_dim)  # a key head serves the queries of its group
    group = grouped.shape[1]
    kv_step, group_step, row_step = piece_sizes(kv_heads, group, rows, length, len(columns), head_dim)
    for kv in _slices(kv_heads, kv_step):
        turned = keys[kv].float().transpose(1, 2)
        for members in _slices(group, group_step):
            best = _log_probability(grouped[kv, members, :row_step], turned, view, slice(0, row_step), allowed)
            for span in _slices(rows, row_step, start=row_step):
                more = _log_probability(grouped[kv, members, span], turned, view, span, allowed)
                best = torch.maximum(best, more)
            yield best.exp_().flatten(0, 1)


def _log_probability(queries: Tensor, keys: Tensor, view: AttentionView, rows: slice, allowed: KeyMask) -> Tensor:
    """``(k, g, N)`` log-probability of each column, largest over the rows of ``queries`` ``(k, g, r, d)``.

    The logits are overwritten on the way, so that one matrix and its columns are all that lives.
    """
    kv_heads, group, count, head_dim = queries.shape
    scaled = queries.float() * view.scaling
    logits = torch.bmm(scaled.reshape(kv_heads, group * count, head_dim), keys).view(kv_heads, group, count, -1)
    logits.masked_fill_(allowed(rows).logical_not(), -torch.inf)
    wanted = logits.index_select(-1, view.visual_columns)
    if view.mass is not None:  # the layer's own softmax counts a key as often as it has mass; a score is per token
        logits.add_(view.mass.log())
    peak = logits.amax(dim=-1, keepdim=True)
    log_sum = logits.sub_(peak).exp_().sum(dim=-1, keepdim=True).log_().add_(peak)
    return wanted.sub_(log_sum).amax(dim=2)


def _slices(length: int, step: int, start: int = 0) -> Iterator[slice]:
    return (slice(begin, min(begin + step, length)) for begin in range(start, length, step))


def _max_over_heads(pieces: Iterable[Tensor]) -> Tensor:
    return reduce(torch.maximum, (piece.amax(dim=0) for piece in pieces))


def _mean_over_heads(pieces: Iterable[Tensor]) -> Tensor:
    heads, total = reduce(lambda a, b: (a[0] + b[0], a[1] + b[1]), ((len(p), p.sum(dim=0)) for p in pieces))
    return total / heads


HEAD_REDUCTIONS: dict[str, Callable[[Iterable[Tensor]], Tensor]] = {"max": _max_over_heads, "mean": _mean_over_heads}
"""Ways to reduce ``(h, N)`` pieces over all heads: ``max``, or ``mean`` of each head's largest over text rows."""
