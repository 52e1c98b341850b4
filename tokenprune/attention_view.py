# SPDX-License-Identifier: Apache-2.0
"""What an operator may read of attention: a layer's queries of the text rows and its keys, and its neighbours'."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tokenprune.errors import InvalidValueError, UnsupportedModeError
from tokenprune.messages import shown
from tokenprune.tokens import VisualTokens

LOGIT_BYTES = 64 * 2**20
"""Most bytes of (heads x rows x keys) alive at a time (law 9)."""

Which = Literal["last", "text"] | int | Tensor
"""Text rows: the last one, all of them, the last so many, or their indices."""


@dataclass(frozen=True, eq=False)
class AttentionView:
    """What one decoder layer, and those before and after it, know of one row of the batch; each read when asked for.

    Every ``layer`` below is -1, 0 or 1, counted from the operator's own: 0 is the layer that has just run; 1 is the
    next one, on the tokens as they are now, none of them cut. An operator that says what it ``reads``
    (:data:`tokenprune.signals.READS`) is refused, when attached, where that is not to be had.

    >>> view = AttentionView.of(torch.ones(2, 1, 4), torch.ones(1, 4, 4), torch.tensor([0, 1]))
    >>> view.rows("last")[0]
    tensor([[0.2500, 0.2500]])

    Args:
        read_queries: ``rotated -> (heads, R, head_dim)``, the text rows' queries with or without RoPE.
        read_keys: ``rotated -> (kv_heads, L, head_dim)``, all keys the rows could see, earlier turns first.
        text_rows: ``(R,)`` int64, where on the key axis each text row stands.
        visual_columns: ``(N,)`` int64, where on the key axis each visual token to be scored stands.
        valid_keys: ``(L,)`` bool, False for padding.
        scaling: factor of the query-key product, usually ``head_dim ** -0.5``.
        mass: ``(L,)`` fp32, how many tokens each key stands for in the layer's own softmax; None: one each.
        read_values: ``() -> (kv_heads, L, head_dim)``, where values can be read.
        read_hidden: places on the key axis ``(n,)`` -> hidden states ``(n, D)`` that the layer puts out.
        neighbour: -1 or 1 -> the same of the layer before or after.
    """

    read_queries: Callable[[bool], Tensor]
    read_keys: Callable[[bool], Tensor]
    text_rows: Tensor
    visual_columns: Tensor
    valid_keys: Tensor
    scaling: float
    mass: Tensor | None = None
    read_values: Callable[[], Tensor] | None = None
    read_hidden: Callable[[Tensor], Tensor] | None = None
    neighbour: Callable[[int], AttentionView] | None = None

    @classmethod
    def of(cls, queries: Tensor, keys: Tensor, visual_columns: Tensor, values: Tensor | None = None) -> AttentionView:
        """What is written out here, for trying an operator by hand: nothing is padding, and RoPE is left out.

        >>> view = AttentionView.of(torch.ones(2, 1, 4), torch.ones(1, 3, 4), torch.tensor([0, 1]))
        >>> view.rows("last").shape
        torch.Size([2, 1, 2])

        Args:
            queries: ``(heads, R, head_dim)`` of the text rows, which stand last.
            keys: ``(kv_heads, L, head_dim)``.
            visual_columns: ``(N,)`` int64.
            values: ``(kv_heads, L, head_dim)``, where an operator after the prefill reads them.
        """
        length = keys.shape[1]
        return cls(
            lambda rotated: queries,
            lambda rotated: keys,
            torch.arange(length - queries.shape[1], length, device=keys.device),
            visual_columns,
            torch.ones(length, dtype=torch.bool, device=keys.device),
            keys.shape[2] ** -0.5,
            read_values=None if values is None else lambda: values,
        )

    def at(self, layer: int) -> AttentionView:
        """The view of the layer before (-1) or after (1) this one; 0 is this one.

        Raises:
            InvalidValueError: ``layer`` is not -1, 0 or 1.
            UnsupportedModeError: there is no such layer, or it cannot be read.
        """
        if isinstance(layer, bool) or layer not in (-1, 0, 1):
            raise InvalidValueError(f"layer must be -1, 0 or 1, counted from the operator's own, got {shown(layer)}")
        if layer == 0:
            return self
        if self.neighbour is None:
            raise UnsupportedModeError(f"here the operator's own layer only can be read, not {layer:+d} from it")
        return self.neighbour(layer)

    def queries(self, rotated: bool = True, layer: int = 0) -> Tensor:
        """``(heads, R, head_dim)`` queries of the text rows, rotated as the layer does, or before RoPE."""
        return self.at(layer).read_queries(rotated)

    def keys(self, rotated: bool = True, layer: int = 0) -> Tensor:
        """``(kv_heads, L, head_dim)`` keys, rotated as the layer does, or before RoPE."""
        return self.at(layer).read_keys(rotated)

    def values(self, layer: int = 0) -> Tensor:
        """``(kv_heads, L, head_dim)`` values of all keys.

        Raises:
            UnsupportedModeError: there is no such layer, or its values cannot be read: inside the LLM they are taken
                from the cache.
        """
        read = self.at(layer).read_values
        if read is None:
            raise UnsupportedModeError("values are read from the cache, which here has none of that layer")
        return read()

    def hidden(self, layer: int = 0) -> Tensor:
        """``(N, D)`` hidden states of the visual columns that a layer puts out; -1: what the operator's own was given.

        Raises:
            UnsupportedModeError: there is no such layer, or it has not run yet.
        """
        return self._hidden(self.at(layer).read_hidden, self.visual_columns)

    def text_hidden(self, layer: int = 0) -> Tensor:
        """``(R, D)`` the same of the text rows."""
        return self._hidden(self.at(layer).read_hidden, self.text_rows)

    def _hidden(self, read: Callable[[Tensor], Tensor] | None, places: Tensor) -> Tensor:
        if read is None:
            raise UnsupportedModeError("that layer's hidden states cannot be read: it has not run")
        return read(places)

    def rows(self, which: Which, layer: int = 0) -> Tensor:
        """``(heads, R, N)`` fp32: probabilities with which text rows attend to the visual columns.

        The softmax runs over every key that a row may see. Where keys have mass it counts each as often as the layer
        does, and what is returned is the attention per original token.

        >>> view = AttentionView.of(torch.ones(2, 1, 4), torch.ones(1, 4, 4), torch.tensor([0, 1]))
        >>> view.rows("last").mean(0)  # over the heads
        tensor([[0.2500, 0.2500]])

        Args:
            which: ``"last"`` text row, every row of the ``"text"``, the last so many (all, where there are fewer), or
                ``(R,)`` int64 indices among the text rows.
            layer: 0, the operator's own layer; -1 or 1: the one before or after it.

        Raises:
            InvalidValueError: ``which`` names no rows, there is no text row, or ``layer`` is not -1, 0 or 1.
            UnsupportedModeError: there is no such layer, or it cannot be read.
        """
        if layer != 0:
            return self.at(layer).rows(which)
        rows = chosen_rows(which, len(self.text_rows)).to(self.text_rows.device)
        queries, keys = self.queries(), self.keys()
        with torch.no_grad(), torch.autocast(queries.device.type, enabled=False):
            queries = queries[:, rows].float() * self.scaling
            group = len(queries) // len(keys)  # query heads that a key head serves
            probabilities = queries.new_empty(len(queries), len(rows), len(self.visual_columns))
            heads, step = piece(group, len(rows), keys.shape[1])
            for start in range(0, len(queries), heads):
                mine = slice(start, start + heads)
                turned = keys[start // group].float().mT
                for begin in range(0, len(rows), step):
                    part = slice(begin, begin + step)
                    probabilities[mine, part] = _probabilities(self, queries[mine, part] @ turned, rows[part])
        return probabilities

    def visible(self, rows: slice | Tensor) -> Tensor:
        """``(r, L)`` bool: which keys these text rows may see (causal, padding masked)."""
        key_places = torch.arange(len(self.valid_keys), device=self.valid_keys.device)
        return (key_places <= self.text_rows[rows].unsqueeze(1)).logical_and_(self.valid_keys)


def attention_of(tokens: VisualTokens) -> AttentionView:
    """The attention among the signals of these tokens.

    >>> view = AttentionView.of(torch.ones(2, 1, 4), torch.ones(1, 3, 4), torch.tensor([0, 1]))
    >>> attention_of(VisualTokens(torch.zeros(2, 4), (2, 1, 1), signals={"attention": view})) is view
    True

    Raises:
        InvalidValueError: there is none; an operator that reads it says so in ``needs``.
    """
    view = tokens.signals.get("attention")
    if not isinstance(view, AttentionView):
        raise InvalidValueError('these tokens carry no attention; an operator that reads it needs=("attention",)')
    return view


def chosen_rows(which: Which, count: int) -> Tensor:
    """``(R,)`` int64 indices among ``count`` text rows.

    >>> chosen_rows("last", 5)
    tensor([4])

    Raises:
        InvalidValueError: ``which`` names no rows.
    """
    allowed = '"last", "text", a number of rows of at least 1, or a non-empty (R,) int64 tensor of indices'
    if count == 0:
        raise InvalidValueError("attention rows need at least one text row after the visual tokens, got none")
    if isinstance(which, Tensor):
        if which.ndim != 1 or which.dtype != torch.int64 or len(which) == 0:
            raise InvalidValueError(f"which must be {allowed}, got {which.dtype} of shape {tuple(which.shape)}")
        if not bool(((which >= 0) & (which < count)).all()):
            raise InvalidValueError(f"which must hold indices in [0, {count}), got {shown(which.tolist())}")
        return which
    if which == "text":
        return torch.arange(count)
    window = 1 if which == "last" else which
    if isinstance(window, bool) or not isinstance(window, int) or window < 1:
        raise InvalidValueError(f"which must be {allowed}, got {shown(which)}")
    return torch.arange(max(0, count - window), count)


def piece(group: int, rows: int, keys: int) -> tuple[int, int]:
    """How many query heads of one key head, a divisor of ``group``, and how many rows are read at once.

    >>> piece(group=7, rows=32, keys=100_000)
    (7, 8)
    """
    line = keys * (2 * 4 + 3)  # logits and their exponentials, in fp32; which keys are seen
    heads = next(n for n in range(group, 0, -1) if group % n == 0 and (n == 1 or n * line <= LOGIT_BYTES))
    return heads, max(1, min(rows, LOGIT_BYTES // (heads * line)))


def _probabilities(view: AttentionView, logits: Tensor, rows: Tensor) -> Tensor:
    """``(h, r, N)`` from logits ``(h, r, L)``, which are overwritten."""
    logits.masked_fill_(view.visible(rows).logical_not_(), -torch.inf)
    wanted = logits.index_select(-1, view.visual_columns)
    if view.mass is not None:  # the layer's own softmax counts a key as often as it has mass
        logits.add_(view.mass.log())
    return wanted.sub_(torch.logsumexp(logits, dim=-1, keepdim=True)).exp_()
