# SPDX-License-Identifier: Apache-2.0
"""Hypothesis strategies: visual tokens that are hard to be right about, plans, scores, and views of attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Generator, Tensor

from tokenprune.attention_view import AttentionView
from tokenprune.plan import TokenPlan
from tokenprune.tokens import VisualTokens

Grid = tuple[int, int, int]
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_EXPONENTS = {
    torch.float16: (-12, 10),
    torch.bfloat16: (-100, 100),
    torch.float32: (-100, 100),
    torch.float64: (-900, 900),
}


def grids(max_frames: int = 6, max_height: int = 4, max_width: int = 4) -> st.SearchStrategy[Grid]:
    """``(T, H, W)`` of a small video, one frame and one position among them.

    >>> from hypothesis import find
    >>> find(grids(), lambda grid: grid[0] > 1)
    (2, 1, 1)
    """
    return st.tuples(st.integers(1, max_frames), st.integers(1, max_height), st.integers(1, max_width))


def _random(seed: Generator, frames: int, places: int, dim: int) -> Tensor:
    return torch.randn(frames, places, dim, generator=seed, dtype=torch.float64)


def _scenes(seed: Generator, frames: int, places: int, dim: int) -> Tensor:
    """Two scenes; in each, half of the places hardly move."""
    scene = _random(seed, 2, places, dim)[(torch.arange(frames) >= frames // 2).long()]
    noise = _random(seed, frames, places, dim)
    return scene + noise * torch.where(torch.arange(places) % 2 == 0, 0.01, 1.0)[:, None]


def _few_values(seed: Generator, frames: int, places: int, dim: int) -> Tensor:
    """Small integers, so that many tokens, distances and similarities are exactly equal."""
    return torch.randint(-1, 2, (frames, places, dim), generator=seed).double()


def _one_apart(seed: Generator, frames: int, places: int, dim: int) -> Tensor:
    tokens = torch.ones(frames, places, dim, dtype=torch.float64)
    tokens[frames // 2, places // 2] = -3.0
    return tokens


FEATURES: dict[str, Callable[[Generator, int, int, int], Tensor]] = {
    "all equal": lambda seed, frames, places, dim: _random(seed, 1, 1, dim).repeat(frames, places, 1),
    "all zero": lambda seed, frames, places, dim: torch.zeros(frames, places, dim, dtype=torch.float64),
    "random": _random,
    "still frames": lambda seed, frames, places, dim: _random(seed, 1, places, dim).repeat(frames, 1, 1),
    "scenes": _scenes,
    "few values": _few_values,
    "one apart": _one_apart,
}
"""Name -> ``(generator, T, H*W, D) -> (T, H*W, D)`` fp64 features."""


@st.composite
def visual_tokens(
    draw: st.DrawFn,
    grid: st.SearchStrategy[Grid] | None = None,
    dim: st.SearchStrategy[int] | None = None,
    dtype: st.SearchStrategy[torch.dtype] | None = None,
) -> VisualTokens:
    """One video's tokens: ordinary or degenerate features, of ordinary, huge or tiny scale, in any dtype; all finite.

    >>> from hypothesis import find
    >>> len(find(visual_tokens(grid=st.just((3, 2, 2))), lambda tokens: True))
    12

    Args:
        draw: given by hypothesis.
        grid: ``(T, H, W)``; default: :func:`grids`.
        dim: components of a token; default: 1 to 8.
        dtype: floating-point dtype; default: fp32, bf16, fp16 or fp64.
    """
    frames, height, width = draw(grids() if grid is None else grid)
    size = draw(st.integers(1, 8) if dim is None else dim)
    kind = draw(st.sampled_from(list(FEATURES)))
    form = draw(st.sampled_from(DTYPES) if dtype is None else dtype)
    exponent = draw(st.sampled_from([0, *_EXPONENTS[form]]))
    features = FEATURES[kind](_generator(draw), frames, height * width, size).reshape(-1, size)
    return VisualTokens((features * 2.0**exponent).to(form), (frames, height, width))


@st.composite
def token_plans(draw: st.DrawFn, total: int | None = None) -> TokenPlan:
    """A lawful plan: keeps all, prunes, merges, or merges with weights.

    >>> from hypothesis import find
    >>> find(token_plans(total=4), lambda plan: plan.kept == 2).total
    4

    Args:
        draw: given by hypothesis.
        total: N; default: 1 to 24.
    """
    count = draw(st.integers(1, 24)) if total is None else total
    kind = draw(st.sampled_from(["identity", "pruning", "merging", "weighted"]))
    if kind == "identity" or count == 0:
        return TokenPlan.identity(count)
    kept = draw(st.integers(1, count))
    seed = _generator(draw)
    anchors = torch.randperm(count, generator=seed)[:kept].sort().values
    if kind == "pruning":
        return TokenPlan.keeping(anchors, count)
    assign = torch.randint(-1, kept, (count,), generator=seed)
    assign[anchors] = torch.arange(kept)
    weights = None
    if kind == "weighted":
        weights = torch.rand(count, generator=seed)
        weights[anchors] += 0.1
    return TokenPlan(anchors, assign, weights)


@st.composite
def operator_tokens(
    draw: st.DrawFn,
    needs: Sequence[str] = (),
    grid: st.SearchStrategy[Grid] | None = None,
    count: int | None = None,
    dim: int | None = None,
) -> VisualTokens:
    """:func:`visual_tokens` with the signals that an operator needs: with ties, zeros and extremes among them.

    >>> from hypothesis import find
    >>> list(find(operator_tokens(needs=("relevance",)), lambda tokens: True).signals)
    ['relevance']

    Args:
        draw: given by hypothesis.
        needs: names of signals.
        grid: ``(T, H, W)``; default: :func:`grids`.
        count: N, in place of a grid.
        dim: components of a token.
    """
    frames = st.just((count, 1, 1)) if count is not None else grid
    tokens = draw(visual_tokens(frames, None if dim is None else st.just(dim)))
    total, seed = len(tokens), _generator(draw)
    signals: dict[str, Any] = {}
    for name in sorted(needs, key="attention".__ne__):  # the text has as many rows as it
        if name == "attention":
            signals[name] = draw(attention_views(visual=total, features=tokens.features))
        elif name == "encoder_keys":
            signals[name] = torch.randn(total, 4, generator=seed)
        elif name == "embeddings":
            width = tokens.features.shape[1]
            signals[name] = draw(st.sampled_from([_random, _few_values]))(seed, 1, total, width)[0].float()
        elif name == "text":
            rows = len(signals["attention"].text_rows) if "attention" in signals else 3
            signals[name] = torch.randn(rows, tokens.features.shape[1], generator=seed).to(tokens.features.dtype)
        else:
            random = torch.rand(total, generator=seed)
            kinds = [random, torch.zeros(total), torch.randint(0, 3, (total,), generator=seed) / 4, random * 1e-38]
            signals[name] = draw(st.sampled_from(kinds))
    return replace(tokens, signals=signals)


def seen_by(view: AttentionView) -> VisualTokens:
    """Tokens without features that carry this attention, for those who want scores alone.

    >>> view = AttentionView.of(torch.ones(2, 1, 4), torch.ones(1, 3, 4), torch.tensor([0, 1]))
    >>> len(seen_by(view))
    2
    """
    count = len(view.visual_columns)
    features = view.valid_keys.new_zeros(count, 1, dtype=torch.float32)
    if count:
        return VisualTokens(features, (count, 1, 1), signals={"attention": view})
    gone = torch.full((1,), -1, device=features.device)
    return VisualTokens(features, (1, 1, 1), membership=gone, signals={"attention": view})


@st.composite
def attention_views(
    draw: st.DrawFn,
    dtype: st.SearchStrategy[torch.dtype] | None = None,
    visual: int | None = None,
    features: Tensor | None = None,
) -> AttentionView:
    """One prompt row as scorers see it: grouped heads, left padding, visual columns with gaps, text rows after them.

    The layers before and after have other queries and keys, the one before hidden states as well.
    ``queries``, ``keys`` and ``values`` return the same tensors every time they are asked.

    >>> from hypothesis import find
    >>> find(attention_views(visual=3), lambda view: True).visual_columns.shape
    torch.Size([3])

    Args:
        draw: given by hypothesis.
        dtype: of queries and keys; default: fp32 or bf16.
        visual: number of visual columns; default: 1 to 12.
        features: ``(N, D)`` hidden states of the visual columns; default: as wide as two heads.
    """
    kv_heads, group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    head_dim = 2 * draw(st.integers(1, 4))
    padding, rows = draw(st.integers(0, 3)), draw(st.integers(1, 5))
    visual = draw(st.integers(1, 12)) if visual is None else visual
    seed = _generator(draw)
    form = draw(st.sampled_from((torch.float32, torch.bfloat16)) if dtype is None else dtype)
    spread = draw(st.sampled_from([1.0, 0.0, 1e-6, 30.0]))
    prompt = visual + draw(st.integers(1, 4))
    length = padding + prompt + rows
    columns = torch.randperm(prompt, generator=seed)[:visual].sort().values + padding

    def tensors(heads: int, count: int) -> dict[bool, Tensor]:
        return {r: (torch.randn(heads, count, head_dim, generator=seed) * spread).to(form) for r in (True, False)}

    def layer() -> AttentionView:
        queries, keys, values = tensors(kv_heads * group, rows), tensors(kv_heads, length), tensors(kv_heads, length)
        return AttentionView(
            read_queries=lambda rotated: queries[rotated],
            read_keys=lambda rotated: keys[rotated],
            text_rows=torch.arange(length - rows, length),
            visual_columns=columns,
            valid_keys=torch.arange(length) >= padding,
            scaling=head_dim**-0.5,
            read_values=lambda: values[True],
        )

    shown = torch.randn(visual, 2 * head_dim, generator=seed) if features is None else features.detach()
    states = torch.randn(2, length, shown.shape[1], generator=seed, dtype=torch.float64) * shown.abs().amax().double()
    before, after = (states[n].to(shown.dtype) for n in (0, 1))
    after[columns] = shown
    before[columns[::2]] = shown[::2]  # half of them have not moved
    neighbours = {-1: replace(layer(), read_hidden=before.__getitem__), 1: layer()}
    return replace(layer(), read_hidden=after.__getitem__, neighbour=neighbours.__getitem__)


def _generator(draw: st.DrawFn) -> Generator:
    return Generator().manual_seed(draw(st.integers(0, 2**16)))
