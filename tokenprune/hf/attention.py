# SPDX-License-Identifier: Apache-2.0
"""Reading one decoder layer's queries and keys from its projections, for the text rows only."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tokenprune.adapter import Removable
from tokenprune.attention_view import AttentionView
from tokenprune.errors import UnsupportedModeError

Rotate = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``(x (heads, n, head_dim), cos, sin) -> rotated``; cos and sin are ``(n, rotary_dim)``."""


def rotation_of(attention: nn.Module) -> Rotate:
    """The rotary embedding that an attention module of the library applies, taken from the module of its class.

    By halves, by pairs, over a part of each head: nothing but the function itself tells.

    Raises:
        UnsupportedModeError: it is not there under the name and with the arguments that are known.
    """
    name = "apply_rotary_pos_emb"
    homes = [sys.modules.get(kind.__module__) for kind in type(attention).__mro__]
    apply: Any = next((vars(home)[name] for home in homes if home is not None and name in vars(home)), None)
    if apply is None or list(inspect.signature(apply).parameters)[:4] != ["q", "k", "cos", "sin"]:
        raise UnsupportedModeError(
            f"how {type(attention).__name__} rotates queries and keys is not known; give its adapter's reader a rotate"
        )

    def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return apply(x.unsqueeze(0), x[:0].unsqueeze(0), cos.unsqueeze(0), sin.unsqueeze(0))[0].squeeze(0)

    return rotate


@dataclass(eq=False)
class ProjectionReader:
    """What ``query`` and ``key`` put out while ``attention`` runs (a :class:`tokenprune.adapter.AttentionReader`).

    Forward hooks see the right values with LoRA, quantised or offloaded weights, and without any cache; the weights
    themselves are never read.

    >>> own = model.model.language_model.layers[0].self_attn
    >>> reader = ProjectionReader(own, own.q_proj, own.k_proj, own.head_dim, own.scaling)
    >>> for handle in reader.watch([torch.tensor([0])]):
    ...     handle.remove()

    Args:
        attention: the layer's attention module, called with ``position_embeddings=(cos, sin)``, each
            ``(B, L, head_dim)``.
        query: module whose output ``(B, L, heads * head_dim)``, or ``(B, L, heads, head_dim)``, holds the queries
            before RoPE: the norm of the queries where there is one, else their projection.
        key: the same for the keys.
        head_dim: size of a head.
        scaling: factor of the query-key product.
        rotate: the model's rotary embedding; None: the function of the library that the attention itself calls.
    """

    attention: nn.Module
    query: nn.Module
    key: nn.Module
    head_dim: int
    scaling: float
    rotate: Rotate | None = None
    _rows: Sequence[Tensor] = field(default=(), init=False)
    _queries: list[Tensor] = field(default_factory=list, init=False)
    _keys: Tensor | None = field(default=None, init=False)
    _rotary: tuple[Tensor, Tensor] | None = field(default=None, init=False)

    def watch(self, rows: Sequence[Tensor]) -> Sequence[Removable]:
        self._rows = rows
        return [
            self.attention.register_forward_pre_hook(self._see_rotary, with_kwargs=True),
            self.query.register_forward_hook(self._see_queries),
            self.key.register_forward_hook(self._see_keys),
        ]

    def view(
        self,
        row: int,
        earlier_keys: Tensor | None,
        valid_keys: Tensor,
        visual_places: Tensor,
        mass: Tensor | None = None,
    ) -> AttentionView:
        if self._keys is None or self._rotary is None:
            raise UnsupportedModeError("the attention layer ran without its query and key projections being called")
        queries, keys = self._queries[row], self._keys[row]
        device = keys.device
        rows, visual = self._rows[row].to(device), visual_places.to(device)
        cos, sin = (part[row if len(part) > 1 else 0].to(device) for part in self._rotary)
        earlier = 0 if earlier_keys is None else earlier_keys.shape[1]
        turn = rotation_of(self.attention) if self.rotate is None else self.rotate

        def read_queries(rotated: bool) -> Tensor:
            heads = queries.transpose(0, 1)
            return turn(heads, cos[rows], sin[rows]) if rotated else heads

        def read_keys(rotated: bool) -> Tensor:
            heads = keys.transpose(0, 1)
            if not rotated:
                if earlier_keys is not None:
                    raise UnsupportedModeError("the cache holds earlier keys after RoPE only; use rope_causal scores")
                return heads
            turned = turn(heads, cos, sin)
            return turned if earlier_keys is None else torch.cat([earlier_keys.to(device), turned], dim=1)

        return AttentionView(
            read_queries,
            read_keys,
            rows + earlier,
            visual + earlier,
            valid_keys.to(device),
            self.scaling,
            None if mass is None else mass.to(device),
        )

    @property
    def projects(self) -> bool:
        """Whether :meth:`project` knows the way from hidden states to queries and keys."""
        return all(isinstance(getattr(self.attention, name, None), nn.Module) for name in ("q_proj", "k_proj"))

    def project(self, normed: Tensor, rows: Tensor, rotary: tuple[Tensor, Tensor]) -> None:
        """See what the layer would compute of ``(1, L, D)`` normed hidden states, without running it.

        Args:
            normed: what its attention module would be given.
            rows: ``(R,)`` places of the text rows.
            rotary: ``(cos, sin)``, each ``(1, L, head_dim)``.

        Raises:
            UnsupportedModeError: the projection of the queries puts out what is not known.
        """
        self._rows, self._rotary = [rows], rotary
        keys = self._heads("k_proj", normed)
        queries = self._heads("q_proj", normed[:, rows.to(normed.device)])
        wanted = keys.shape[2] * int(getattr(self.attention, "num_key_value_groups", 1))
        if queries.shape[2] == 2 * wanted:  # each head's query is followed by a gate
            queries = queries.unflatten(2, (wanted, 2))[:, :, :, 0]
        if queries.shape[2] != wanted:
            kind = type(self.attention).__name__
            raise UnsupportedModeError(f"{kind} projects {queries.shape[2]} heads of queries, not {wanted}")
        self._queries = [self._normed("q_proj", self.query, queries)[0]]
        self._keys = self._normed("k_proj", self.key, keys)

    def _heads(self, name: str, x: Tensor) -> Tensor:
        """``(1, n, heads, head_dim)`` what a projection puts out."""
        return self.attention.get_submodule(name)(x).unflatten(-1, (-1, self.head_dim))

    def _normed(self, name: str, last: nn.Module, heads: Tensor) -> Tensor:
        """Where ``last`` is no projection, it norms the heads that one puts out."""
        return heads if last is self.attention.get_submodule(name) else last(heads)

    def _see_rotary(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._rotary = kwargs["position_embeddings"]

    def _see_queries(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        heads = output.unflatten(-1, (-1, self.head_dim)) if output.ndim == 3 else output
        self._queries = [heads[row, places.to(heads.device)] for row, places in enumerate(self._rows)]

    def _see_keys(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self._keys = output.unflatten(-1, (-1, self.head_dim)) if output.ndim == 3 else output
