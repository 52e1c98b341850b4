# SPDX-License-Identifier: Apache-2.0
"""The laws of prunable KV caches: any Hugging Face cache with ``cut``, ``logical_length`` and ``stored_length``."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from tokenprune.errors import TokenPruneError, UnsupportedCacheError
from tokenprune.testing.laws import Law, check_all, law, require
from tokenprune.testing.same import same_bits

CacheFactory = Callable[[], Any]
LAYERS, HEADS, HEAD_DIM = 2, 2, 4


def check_cache(cache_factory: CacheFactory, *, max_examples: int = 20) -> list[str]:
    """Hold a cache to every law of caches; as :func:`tokenprune.testing.check_merger`. Needs transformers.

    >>> check_cache(tp.PrunableDynamicCache, max_examples=2)[0]
    'a-cut-keeps-the-tokens-asked-for'

    Args:
        cache_factory: makes an empty cache: a Hugging Face ``Cache`` that is a :class:`tokenprune.PrunableCache` too.
        max_examples: generated caches a law.

    Raises:
        LawBrokenError: a law does not hold; the message names it.
    """
    return check_all(CACHE_LAWS, cache_factory, max_examples)


@dataclass(frozen=True, eq=False)
class Filled:
    """A cache that was filled and cut, and what it must hold: per layer ``(B, heads, K, head_dim)``."""

    cache: Any
    keys: list[Tensor]
    values: list[Tensor]
    index: Tensor
    mask: Tensor
    length: int

    @property
    def batch(self) -> int:
        return len(self.index)

    @property
    def is_ragged(self) -> bool:
        return not bool(self.mask.all())

    def require_holds(self, pick: Callable[[Tensor], Tensor]) -> None:
        """Every layer holds what ``pick`` makes of the expected keys and values, bit for bit."""
        for layer, keys, values in zip(self.cache.layers, self.keys, self.values):
            require(same_bits(layer.keys, pick(keys)), "the keys are not those of the tokens asked for")
            require(same_bits(layer.values, pick(values)), "the values are not those of the tokens asked for")


def _draw(data: st.DataObject, factory: CacheFactory, *, ragged: bool | None = None) -> Filled:
    batch, length = data.draw(st.integers(2 if ragged else 1, 3)), data.draw(st.integers(2, 9))
    seed = torch.Generator().manual_seed(data.draw(st.integers(0, 2**16)))
    longest = data.draw(st.integers(1, length - 1))
    counts = [longest] * batch
    if ragged is not False:
        counts = [longest, *(data.draw(st.integers(1, longest)) for _ in range(batch - 1))]
    if ragged and min(counts) == longest:
        longest, counts = 2, [2, *[1] * (batch - 1)]
        length = max(length, 3)
    rows = [torch.randperm(length, generator=seed)[:count].sort().values for count in counts]
    index = torch.stack([torch.nn.functional.pad(row, (longest - len(row), 0)) for row in rows])
    mask = torch.arange(longest) >= longest - torch.tensor(counts)[:, None]
    cache, taken = factory(), index[:, None, :, None].expand(-1, HEADS, -1, HEAD_DIM)
    keys, values = [], []
    for layer in range(LAYERS):
        new = [torch.randn(batch, HEADS, length, HEAD_DIM, generator=seed) for _ in range(2)]
        cache.update(new[0], new[1], layer)
        keys.append(new[0].gather(2, taken))
        values.append(new[1].gather(2, taken))
    for layer in range(LAYERS):
        cache.cut(layer, index, mask)
    return Filled(cache, keys, values, index, mask, length)


def _append(cache: Any, batch: int, count: int) -> Tensor:
    new = torch.arange(batch * HEADS * count * HEAD_DIM).float().reshape(batch, HEADS, count, HEAD_DIM)
    for layer in range(LAYERS):
        cache.update(new, -new, layer)
    return new


def _refused(action: Callable[[], object], kind: type[Exception], what: str) -> None:
    try:
        action()
    except kind:
        return
    require(False, f"{what} was not refused")


@law(5)
def a_cut_keeps_the_tokens_asked_for(factory: CacheFactory, data: st.DataObject) -> None:
    """After a cut each layer holds the keys and values at ``index``, in that order, bit for bit."""
    _draw(data, factory).require_holds(lambda x: x)


@law(5)
def a_cut_frees_memory(factory: CacheFactory, data: st.DataObject) -> None:
    """After a cut no layer holds on to the bytes of removed tokens: it stores a copy, not a view."""
    filled = _draw(data, factory)
    for layer in filled.cache.layers:
        for held in (layer.keys, layer.values):
            spare = held.untyped_storage().nbytes() - held.numel() * held.element_size()
            require(spare == 0, f"{spare} bytes of removed tokens are still there")


@law(4)
def logical_and_stored_length_are_kept_apart(factory: CacheFactory, data: st.DataObject) -> None:
    """``logical_length`` counts removed tokens, so positions go on; ``stored_length`` counts slots; both grow."""
    filled = _draw(data, factory, ragged=False)
    stored, new = filled.index.shape[1], data.draw(st.integers(0, 3))
    if new:
        _append(filled.cache, filled.batch, new)
    for name, wanted in (("logical_length", filled.length + new), ("stored_length", stored + new)):
        found = getattr(filled.cache, name)
        require(found == wanted, f"{name} is {found}, not {wanted}")
    require(filled.cache.get_seq_length() == filled.length + new, "get_seq_length is not the logical length")
    sizes = tuple(filled.cache.get_mask_sizes(1, 0))
    wanted = (stored + new + 1, filled.length - stored)
    require(sizes == wanted, f"get_mask_sizes(1) is {sizes}, not {wanted}: masks would be wrong")


@law(5)
def new_tokens_follow_the_kept(factory: CacheFactory, data: st.DataObject) -> None:
    """Tokens appended after a cut stand after the kept ones."""
    filled = _draw(data, factory, ragged=False)
    new = _append(filled.cache, filled.batch, 2)
    for layer, keys in zip(filled.cache.layers, filled.keys):
        require(same_bits(layer.keys, torch.cat([keys, new], dim=2)), "new keys do not follow the kept ones")


@law(10)
def a_ragged_cache_needs_a_session(factory: CacheFactory, data: st.DataObject) -> None:
    """Where rows keep different numbers of tokens, use without a session is refused, before anything changes."""
    filled = _draw(data, factory, ragged=True)
    new = torch.zeros(filled.batch, HEADS, 1, HEAD_DIM)
    _refused(lambda: filled.cache.update(new, new, 0), UnsupportedCacheError, "an update without a session")
    filled.require_holds(lambda x: x)


@law(10)
def rows_travel_with_their_mask(factory: CacheFactory, data: st.DataObject) -> None:
    """Reordering, selecting, repeating and deep-copying rows moves keys, values and the stored-token mask alike."""
    filled = _draw(data, factory, ragged=True)
    rows = torch.tensor(data.draw(st.lists(st.integers(0, filled.batch - 1), min_size=1, max_size=3)))
    beams = torch.tensor(data.draw(st.permutations(range(filled.batch))))
    moves: list[tuple[str, Callable[[Any], object], Tensor]] = [
        ("reorder_cache", lambda cache: cache.reorder_cache(beams), beams),
        ("batch_select_indices", lambda cache: cache.batch_select_indices(rows), rows),
        (
            "batch_repeat_interleave",
            lambda c: c.batch_repeat_interleave(2),
            torch.arange(filled.batch).repeat_interleave(2),
        ),
    ]
    for name, move, order in moves:
        moved = Filled(
            copy.deepcopy(filled.cache), filled.keys, filled.values, filled.index, filled.mask, filled.length
        )
        move(moved.cache)
        moved.require_holds(lambda x, order=order: x[order])
        wanted = filled.mask[order]
        found = _stored_mask(moved.cache)
        same = bool(wanted.all()) if found is None else torch.equal(found[:, -wanted.shape[1] :], wanted)
        require(same, f"after {name} the stored-token mask belongs to other rows")
    filled.require_holds(lambda x: x)


@law(10)
def only_tokens_stored_without_gaps_can_be_cropped(factory: CacheFactory, data: st.DataObject) -> None:
    """Tokens appended after a cut can be cropped; a crop that reaches removed tokens is refused."""
    filled = _draw(data, factory, ragged=False)
    _append(filled.cache, filled.batch, 2)
    filled.cache.crop(-2)
    filled.require_holds(lambda x: x)
    require(filled.cache.logical_length == filled.length, "a crop of what was appended changed the logical length")
    # Of the last tokens of the sequence, as many as every row has kept.
    ends = torch.arange(filled.length - filled.index.shape[1], filled.length)
    gapless = int((filled.index == ends).all(dim=0).flip(0).cumprod(0).sum())
    _refused(lambda: filled.cache.crop(-gapless - 1), UnsupportedCacheError, "a crop into removed tokens")
    filled.require_holds(lambda x: x)


@law(10)
def a_reset_forgets_everything(factory: CacheFactory, data: st.DataObject) -> None:
    """After ``reset`` the cache is as good as new, whatever was cut before."""
    filled = _draw(data, factory)
    filled.cache.reset()
    require(filled.cache.logical_length == 0, f"logical_length is {filled.cache.logical_length} after a reset")
    new = _append(filled.cache, filled.batch, 3)
    for layer in filled.cache.layers:
        require(same_bits(layer.keys, new), "after a reset old tokens are still there")
    require((filled.cache.logical_length, filled.cache.stored_length) == (3, 3), "a reset left a wrong length")


@law(11)
def a_wrong_cut_is_refused(factory: CacheFactory, data: st.DataObject) -> None:
    """An index of the wrong batch, or of more tokens than are stored, is refused and changes nothing."""
    filled = _draw(data, factory, ragged=False)
    stored = filled.index.shape[1]
    for shape in ((filled.batch + 1, 1), (filled.batch, stored + 1)):
        zeros = torch.zeros(shape, dtype=torch.int64)
        mask = torch.ones(shape, dtype=torch.bool)
        _refused(lambda z=zeros, m=mask: filled.cache.cut(0, z, m), TokenPruneError, f"an index of shape {shape}")
    filled.require_holds(lambda x: x)


CACHE_LAWS: tuple[Law[CacheFactory], ...] = (
    a_cut_keeps_the_tokens_asked_for,
    a_cut_frees_memory,
    logical_and_stored_length_are_kept_apart,
    new_tokens_follow_the_kept,
    a_ragged_cache_needs_a_session,
    rows_travel_with_their_mask,
    only_tokens_stored_without_gaps_can_be_cropped,
    a_reset_forgets_everything,
    a_wrong_cut_is_refused,
)


def _stored_mask(cache: Any) -> Tensor | None:
    from tokenprune.hf import make_prunable

    return make_prunable(cache).stored_mask(None, 0)
