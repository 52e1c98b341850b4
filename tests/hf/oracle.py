# SPDX-License-Identifier: Apache-2.0
"""The full-length model in plain loops and fp64, one row at a time, in which removed tokens are masked.

It shares nothing with the runtime and nothing with the library's attention, masks or caches: only the weights, the
visual tower's features and the library's M-RoPE positions are read. A token that is removed after layer N of a prefill
is hidden from the other tokens of that prefill in layers > N, and from every later token in all layers.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any

import torch
from hf.prompts import Placed, Prompt
from torch import Tensor

from tokenprune.plan import TokenPlan
from tokenprune.tokens import VisualTokens

Merge = Callable[[VisualTokens], TokenPlan]
TIE = 1e-5
"""Relative distance below which a decision may differ between fp32 and fp64 (law 6)."""


@dataclass(frozen=True)
class Cut:
    """What an ``AttnPrune`` with the paper's scores and one ranking does, in plain words."""

    layer: int
    keep_ratio: float | None = None
    keep: int | None = None
    modalities: tuple[str, ...] = ("video",)

    def count(self, total: int) -> int:
        wanted = self.keep if self.keep is not None else math.ceil(Fraction(str(self.keep_ratio)) * total)
        return min(total, max(1, wanted))


@dataclass
class Row:
    """One row without its padding, and after merging.

    Args:
        embeds: ``(n, D)`` fp64.
        positions: ``(3, n)``.
        columns: column of the ids as passed of each token.
        kind: "text", "video" or "image" of each token.
        sources: columns merged into each token.
        removed: place of a removed token -> (layer after which, first column of what comes after its prefill).
    """

    embeds: Tensor
    positions: Tensor
    columns: list[int]
    kind: list[str]
    sources: list[list[int]]
    removed: dict[int, tuple[int, int]] = field(default_factory=dict)

    def kept(self, before: int) -> list[int]:
        """Columns below ``before`` that are still there once all prefills below ``before`` are done."""
        return [c for place, c in enumerate(self.columns) if c < before and place not in self.removed]

    def kept_sources(self, before: int) -> list[list[int]]:
        """Parallel to the visual tokens of :meth:`kept`."""
        return [
            self.sources[place]
            for place, c in enumerate(self.columns)
            if c < before and place not in self.removed and self.kind[place] != "text"
        ]

    def bias(self, layer: int) -> Tensor:
        """``(n, n)`` added to a layer's attention logits, queries by keys; nothing is."""
        return self.embeds.new_zeros(())

    def after(self, layer: int, hidden: Tensor) -> Tensor:
        """``(n, D)`` hidden states as the next layer gets them."""
        return hidden


@torch.no_grad()
def build_row(model: Any, whole: Prompt, row: int, merge: Merge | None = None) -> Row:
    """One row of a prompt (answers and later turns included) with each video merged by its plan."""
    positions = whole.positions(model)[:, row]
    embeds = model.model.language_model.embed_tokens(whole.ids[row]).double()
    kind = ["text"] * whole.length
    gone: set[int] = set()
    sources = [[column] for column in range(whole.length)]
    for placed in whole.clips[row]:
        features = clip_features(model, placed)
        columns = list(range(placed.column, placed.column + placed.clip.count))
        for column, feature in zip(columns, features):
            embeds[column] = feature.double()
            kind[column] = placed.clip.modality
        if merge is None or placed.clip.modality != "video":
            continue
        plan = merge(VisualTokens(features, (placed.clip.frames, placed.clip.height, placed.clip.width)))
        anchors, assign = plan.anchors.tolist(), plan.assign.tolist()
        for place, anchor in enumerate(anchors):
            members = [member for member in range(len(assign)) if assign[member] == place]
            total = torch.zeros_like(embeds[0])
            for member in members:
                total += features[member].double()
            embeds[columns[anchor]] = total / len(members)
            sources[columns[anchor]] = [columns[member] for member in members]
        gone |= set(columns) - {columns[anchor] for anchor in anchors}
    stays = [c for c in range(whole.length) if bool(whole.mask[row, c]) and c not in gone]
    return Row(embeds[stays], positions[:, stays], stays, [kind[c] for c in stays], [sources[c] for c in stays])


@lru_cache(maxsize=64)
@torch.no_grad()
def clip_features(model: Any, placed: Placed) -> Tensor:
    """``(T*H*W, D)`` of one video or image, as the model's own tower gives them."""
    name = "get_video_features" if placed.clip.modality == "video" else "get_image_features"
    grid = torch.tensor([placed.clip.grid_thw])
    return torch.cat(list(getattr(model.model, name)(placed.pixels, grid, return_dict=True).pooler_output))


def may_see(row: Row, layer: int) -> Tensor:
    """``(n, n)`` bool: which keys each query sees in a layer; a removed token always sees itself, to no effect."""
    length = len(row.columns)
    seen = torch.ones(length, length, dtype=torch.bool).tril()
    for key, (after, stop) in row.removed.items():
        first = key if layer > after else bisect_left(row.columns, stop)  # who no longer sees it
        seen[max(first, key + 1) :, key] = False
    return seen


def turns(positions: Tensor, config: Any, half: int) -> Tensor:
    """``(n, half)`` angles of M-RoPE: pair i turns by its section's axis of the position."""
    sections = config.rope_parameters["mrope_section"]
    axis = [a for a, size in enumerate(sections) for _ in range(size)]
    speed = torch.tensor([config.rope_parameters["rope_theta"] ** (-i / half) for i in range(half)]).double()
    return torch.stack([positions[axis[i]].double() * speed[i] for i in range(half)], dim=1)


def rotated(x: Tensor, angle: Tensor) -> Tensor:
    """``(n, d)`` of which the pairs (i, i + d / 2) are turned."""
    first, second = x.chunk(2, dim=1)
    return torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], dim=1)


def layer_by_layer(model: Any, row: Row) -> Iterator[tuple[list[Tensor], Tensor]]:
    """Of each layer in turn: every head's ``(n, n)`` attention probabilities, and ``(n, D)`` hidden states."""
    text, config = model.model.language_model, model.config.text_config
    hidden = row.embeds
    head_dim = config.hidden_size // config.num_attention_heads
    group = config.num_attention_heads // config.num_key_value_heads
    angle = turns(row.positions, config, head_dim // 2)
    for index, layer in enumerate(text.layers):
        normed = rms(hidden, layer.input_layernorm)
        attention = layer.self_attn
        queries, keys, values = (linear(normed, p) for p in (attention.q_proj, attention.k_proj, attention.v_proj))
        seen, bias = may_see(row, index), row.bias(index)
        weights, heads = [], []
        for head in range(config.num_attention_heads):
            own = slice(head * head_dim, (head + 1) * head_dim)
            shared = slice(head // group * head_dim, (head // group + 1) * head_dim)
            logits = rotated(queries[:, own], angle) @ rotated(keys[:, shared], angle).T / math.sqrt(head_dim)
            weights.append((logits + bias).masked_fill(~seen, -math.inf).softmax(dim=1))
            heads.append(weights[-1] @ values[:, shared])
        hidden = hidden + linear(torch.cat(heads, dim=1), attention.o_proj)
        normed = rms(hidden, layer.post_attention_layernorm)
        gate = torch.nn.functional.silu(linear(normed, layer.mlp.gate_proj))
        hidden = row.after(index, hidden + linear(gate * linear(normed, layer.mlp.up_proj), layer.mlp.down_proj))
        yield weights, hidden


@torch.no_grad()
def attention_at(model: Any, row: Row, layer: int) -> list[Tensor]:
    """Each head's ``(n, n)`` attention probabilities in one layer."""
    return next(itertools.islice(layer_by_layer(model, row), layer, None))[0]


@torch.no_grad()
def run(model: Any, row: Row) -> Tensor:
    """``(n, vocabulary)`` fp64 logits."""
    *_, (_, hidden) = layer_by_layer(model, row)
    return linear(rms(hidden, model.model.language_model.norm), model.lm_head)


def rms(x: Tensor, norm: Any) -> Tensor:
    return x / (x.pow(2).mean(dim=-1, keepdim=True) + norm.variance_epsilon).sqrt() * norm.weight.double()


def linear(x: Tensor, module: Any) -> Tensor:
    bias = 0.0 if module.bias is None else module.bias.double()
    return x @ module.weight.double().T + bias


def prune(model: Any, row: Row, cuts: Sequence[Cut], prefills: Sequence[tuple[int, int]]) -> Row:
    """Let each selector remove tokens of each prefill in turn, by scores of this model.

    The token that just stays and the one that just goes must be further apart than :data:`TIE`.
    """
    for start, stop in prefills:
        new = [place for place, column in enumerate(row.columns) if start <= column < stop]
        visual = [place for place in new if row.kind[place] != "text"]
        if not visual:
            continue
        asking = [place for place in new if place > visual[-1]]
        for cut in cuts:
            left = [p for p in visual if row.kind[p] in cut.modalities and p not in row.removed]
            count = cut.count(len(left))
            if count >= len(left):
                continue
            probabilities = attention_at(model, row, cut.layer)
            score = {p: max(float(head[q, p]) for head in probabilities for q in asking) for p in left}
            best = sorted(left, key=lambda p: (-score[p], p))
            last, next_ = score[best[count - 1]], score[best[count]]
            assert last - next_ > TIE * last, "this prompt has a close tie: choose another seed"
            for place in best[count:]:
                row.removed[place] = (cut.layer, stop)
    return row


@dataclass
class Oracle:
    """The rows of a prompt with all its turns and answers, pruned by the plain model."""

    rows: list[Row]
    logits: list[Tensor]

    def at(self, row: int, columns: Sequence[int]) -> Tensor:
        """``(len(columns), vocabulary)`` logits after the tokens at these columns."""
        places = [self.rows[row].columns.index(column) for column in columns]
        return self.logits[row][places]


def oracle(model: Any, whole: Prompt, cuts: Sequence[Cut] = (), merge: Merge | None = None) -> Oracle:
    """Everything that a pruned run of these turns, forced to these answers, must agree with."""
    rows = [prune(model, build_row(model, whole, r, merge), cuts, whole.prefills) for r in range(len(whole.ids))]
    return Oracle(rows, [run(model, row) for row in rows])
