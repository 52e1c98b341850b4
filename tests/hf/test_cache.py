# SPDX-License-Identifier: Apache-2.0
"""The prunable cache against a naive list of columns, and in use with and without a session."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("transformers")

from hf.names import CACHE, cache_of
from hf.prompts import Clip, Prompt, prompt, shared_model
from hf.running import alone, answers, contents, counted, same_contents, sequences
from transformers import DynamicCache
from transformers.cache_utils import DynamicSlidingWindowLayer, QuantizedLayer, StaticCache

import tokenprune as tp
from tokenprune.hf import PrunableLayer, make_prunable

CUT = tp.Pipeline([tp.AttnPrune(layer=1, keep_ratio=0.4)])
RAGGED = prompt([[5, Clip(3, 2, 3), 6], [9, Clip(2, 2, 2), 3, Clip(2, 2, 3), 7]])
LAYERS = 3


def filled(batch: int = 2, length: int = 6, cache: DynamicCache | None = None) -> DynamicCache:
    """A cache whose keys are 1000 * row + column and whose values are the negatives, in every layer."""
    cache = tp.PrunableDynamicCache() if cache is None else cache
    append(cache, batch, length)
    return cache


def append(cache: DynamicCache, batch: int, length: int) -> None:
    start = cache.get_seq_length()
    marks = (1000 * torch.arange(batch).view(-1, 1) + torch.arange(start, start + length)).float()
    keys = marks[:, None, :, None].expand(batch, 2, length, 4)
    for layer in range(LAYERS):
        cache.update(keys, -keys, layer)


def cut_all(cache: DynamicCache, index: list[list[int]], mask: list[list[bool]] | None = None) -> None:
    """Cut every layer."""
    handle = make_prunable(cache)
    slots = torch.tensor(index)
    valid = torch.ones_like(slots, dtype=torch.bool) if mask is None else torch.tensor(mask)
    for number in range(len(cache.layers)):
        handle.cut(number, slots, valid)


def stored(cache: DynamicCache) -> list[list[int]]:
    """Per row the marks that layer 0 stores in valid slots; all layers and heads, keys and values, agree."""
    first = cache.layers[0]
    assert isinstance(first, PrunableLayer)
    for layer in cache.layers:
        assert torch.equal(layer.keys, first.keys[:, :1, :, :1].expand_as(layer.keys))
        assert torch.equal(layer.values, -layer.keys)
        assert layer.get_seq_length() == first.get_seq_length()
        assert torch.equal(layer.slot_columns(), first.slot_columns())
    valid = first.slot_valid()
    rows = first.keys[:, 0, :, 0].long()
    keep = torch.ones_like(rows, dtype=torch.bool) if valid is None else valid
    assert torch.equal(rows[keep] % 1000, first.slot_columns()[keep])
    return [row[ok].tolist() for row, ok in zip(rows, keep)]


def test_equal_rows_are_cut() -> None:
    cache = filled()
    cut_all(cache, [[0, 3, 5], [1, 2, 4]])
    assert stored(cache) == [[0, 3, 5], [1001, 1002, 1004]]
    assert cache.logical_length == cache.get_seq_length() == 6
    assert cache.stored_length == 3
    assert cache.get_mask_sizes(1, 0) == (4, 3)
    assert cache.layers[0].slot_valid() is None
    append(cache, 2, 2)
    assert stored(cache) == [[0, 3, 5, 6, 7], [1001, 1002, 1004, 1006, 1007]]
    assert (cache.logical_length, cache.stored_length) == (8, 5)
    cut_all(cache, [[1, 4], [0, 1]])  # a second cut counts slots, not columns
    assert stored(cache) == [[3, 7], [1001, 1002]]
    assert (cache.logical_length, cache.stored_length) == (8, 2)


def test_a_cut_through_the_protocol_of_the_cache() -> None:
    cache = filled()
    cache.cut(1, torch.tensor([[0, 1], [4, 5]]), torch.ones(2, 2, dtype=torch.bool))
    assert [layer.stored for layer in cache.layers] == [6, 2, 6]
    assert cache.layers[1].keys[:, 0, :, 0].tolist() == [[0, 1], [1004, 1005]]
    with pytest.raises(
        tp.UnsupportedCacheError, match=r"index must be \(B, K\) or \(B, heads, K\) with B=2 and K <= 2"
    ):
        cache.cut(1, torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(tp.UnsupportedCacheError, match="holds nothing yet"):
        PrunableLayer().cut(torch.zeros(1, 1, dtype=torch.int64), None)


def ragged() -> DynamicCache:
    """Row 0 keeps 3 tokens, row 1 only 2; their last two columns are without gaps."""
    cache = filled()
    cut_all(cache, [[0, 4, 5], [0, 4, 5]], [[True, True, True], [False, True, True]])
    return cache


def opened(cache: DynamicCache) -> DynamicCache:
    make_prunable(cache).gate.is_open = True
    return cache


def test_ragged_rows_need_a_session() -> None:
    cache = ragged()
    assert stored(cache) == [[0, 4, 5], [1004, 1005]]
    before = contents(cache)
    for use in (lambda: cache.get_mask_sizes(1, 0), lambda: append(cache, 2, 1)):
        with pytest.raises(tp.UnsupportedCacheError, match=r"with tokenprune\.attach"):
            use()
    assert same_contents(contents(cache), before)
    append(opened(cache), 2, 1)
    assert stored(cache) == [[0, 4, 5, 6], [1004, 1005, 1006]]


def test_a_copy_of_an_open_cache_is_closed() -> None:
    cache = opened(ragged())
    other = copy.deepcopy(cache)
    with pytest.raises(tp.UnsupportedCacheError):
        append(other, 2, 1)
    assert len({id(layer.gate) for layer in other.layers}) == 1
    append(cache, 2, 1)
    assert stored(other) == [[0, 4, 5], [1004, 1005]]
    append(opened(other), 2, 2)
    assert stored(cache) == [[0, 4, 5, 6], [1004, 1005, 1006]]


def test_rows_move_with_their_mask() -> None:
    cache = ragged()
    cache.reorder_cache(torch.tensor([1, 0]))
    assert stored(cache) == [[1004, 1005], [0, 4, 5]]
    cache.batch_repeat_interleave(2)
    assert stored(cache) == [[1004, 1005], [1004, 1005], [0, 4, 5], [0, 4, 5]]
    cache.batch_select_indices(torch.tensor([2, 1]))
    assert stored(cache) == [[0, 4, 5], [1004, 1005]]
    append(opened(cache), 2, 1)
    assert [len(row) for row in stored(cache)] == [4, 3]


@pytest.mark.parametrize("count", [-1, 7])
def test_crop_takes_a_negative_count_or_the_length_to_keep(count: int) -> None:
    cache = ragged()
    append(opened(cache), 2, 2)
    cache.crop(count)
    assert stored(cache) == [[0, 4, 5, 6], [1004, 1005, 1006]]
    assert cache.get_seq_length() == 7
    cache.crop(-3)
    assert stored(cache) == [[0], []]
    assert cache.get_seq_length() == 4
    with pytest.raises(tp.UnsupportedCacheError, match="only the last 0"):
        cache.crop(-1)


@pytest.mark.parametrize("count", [-5, 3])
def test_crop_into_the_removed_part_changes_nothing(count: int) -> None:
    cache = ragged()
    append(opened(cache), 2, 2)
    before = contents(cache)
    with pytest.raises(tp.UnsupportedCacheError, match="cannot crop 5 tokens: only the last 4"):
        cache.crop(count)
    assert same_contents(contents(cache), before)
    cache.crop(0)
    cache.crop(100)
    assert same_contents(contents(cache), before)


def test_crop_without_a_cut_is_the_librarys() -> None:
    cache = filled()
    cache.crop(-2)
    assert stored(cache) == [[0, 1, 2, 3], [1000, 1001, 1002, 1003]]


def test_reset_forgets_everything() -> None:
    cache = ragged()
    cache.reset()
    assert cache.get_seq_length() == 0
    append(cache, 1, 3)
    assert stored(cache) == [[0, 1, 2]]
    assert cache.get_mask_sizes(1, 0) == (4, 0)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, Any]]:
    names = st.sampled_from(["append", "cut", "reorder", "repeat", "select", "crop", "copy"])
    return [(draw(names), draw(st.integers(0, 2**20))) for _ in range(draw(st.integers(1, 8)))]


@given(histories())
def test_any_history_equals_lists_of_columns(history: list[tuple[str, int]]) -> None:
    """``rows`` holds per row the marks stored, of ``logical`` columns."""
    cache = opened(filled(batch=2, length=5))
    rows = [[0, 1, 2, 3, 4], [1000, 1001, 1002, 1003, 1004]]
    logical = 5
    for name, number in history:
        draw = torch.Generator().manual_seed(number)
        if name == "append":
            marks = rows_of(cache)
            new = number % 3 + 1
            for layer in range(LAYERS):
                keys = torch.tensor([[float(mark + logical + i) for i in range(new)] for mark in marks])
                keys = keys[:, None, :, None].expand(-1, 2, -1, 4)
                cache.update(keys, -keys, layer)
            rows = [row + [mark + logical + i for i in range(new)] for row, mark in zip(rows, marks)]
            logical += new
        elif name == "cut":
            wanted = [sorted(row[i] for i in range(len(row)) if torch.rand((), generator=draw) < 0.6) for row in rows]
            longest = max(1, *map(len, wanted))
            slots = slot_of(cache)
            index = [
                [0] * (longest - len(want)) + [have.index(mark) for mark in want] for want, have in zip(wanted, slots)
            ]
            mask = [[False] * (longest - len(want)) + [True] * len(want) for want in wanted]
            cut_all(cache, index, mask)
            opened(cache)
            rows = wanted
        elif name == "reorder":
            order = torch.randint(len(rows), (len(rows),), generator=draw)
            cache.reorder_cache(order)
            rows = [rows[i] for i in order]
        elif name == "repeat" and len(rows) < 5:
            cache.batch_repeat_interleave(2)
            rows = [row for row in rows for _ in range(2)]
        elif name == "select":
            chosen = torch.randperm(len(rows), generator=draw)[: max(1, number % (len(rows) + 1))]
            cache.batch_select_indices(chosen)
            rows = [rows[i] for i in chosen]
        elif name == "crop":
            count = number % 3
            if count > min(tail_of(row, logical) for row in rows):
                with pytest.raises(tp.UnsupportedCacheError):
                    cache.crop(-count)
            elif count < logical:
                cache.crop(-count)
                rows = [[mark for mark in row if mark % 1000 < logical - count] for row in rows]
                logical -= count
        elif name == "copy":
            cache = opened(copy.deepcopy(cache))
        assert stored(cache) == rows
        assert cache.get_seq_length() == logical
        assert cache.get_mask_sizes(1, 0) == (cache.layers[0].stored + 1, logical - cache.layers[0].stored)


def tail_of(row: list[int], logical: int) -> int:
    """How many of the last of ``logical`` columns a row of marks ends with."""
    ends = zip(reversed(row), range(logical - 1, -1, -1))
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] % 1000 == pair[1], ends))


def slot_of(cache: DynamicCache) -> list[list[int]]:
    """The mark of every slot; -1 at padding."""
    layer = cache.layers[0]
    valid = layer.slot_valid()
    marks = layer.keys[:, 0, :, 0].long()
    return (marks if valid is None else marks.where(valid, torch.tensor(-1))).tolist()


def rows_of(cache: DynamicCache) -> list[int]:
    """1000 * row of each row's marks; padding slots hold marks of the same row."""
    return (cache.layers[0].keys[:, 0, -1, 0].long() // 1000 * 1000).tolist()


def test_a_ragged_cache_of_a_session_refuses_to_go_on_alone() -> None:
    model, given = shared_model(), RAGGED
    with tp.attach(model, CUT):
        out = sequences(model, given.inputs(), return_dict_in_generate=True)
        cache = cache_of(out)
        talk = given.answered(out.sequences[:, given.length :]).then([[3], [2]])
        expected = answers(model, talk, **{CACHE: copy.deepcopy(cache)}, pixel_values_videos=None)
    before = contents(cache)
    with pytest.raises(tp.UnsupportedCacheError, match="different numbers of tokens"):
        answers(model, talk, **{CACHE: cache}, pixel_values_videos=None)
    with pytest.raises(tp.UnsupportedCacheError, match="different numbers of tokens"):
        model(input_ids=torch.tensor([[5], [6]]), **{CACHE: cache})
    assert same_contents(contents(cache), before)
    for pipeline in (CUT, tp.Pipeline([])):  # any session hands out the mask
        with tp.attach(model, pipeline):
            assert answers(model, talk, **{CACHE: copy.deepcopy(cache)}, pixel_values_videos=None) == expected


def test_an_equal_cache_goes_on_alone() -> None:
    model, given = shared_model(), alone(RAGGED, 0)
    with tp.attach(model, CUT):
        out = sequences(model, given.inputs(), return_dict_in_generate=True)
        cache = cache_of(out)
        assert cache.layers[0].removed > 0
        talk = given.answered(out.sequences[:, given.length :]).then([[3]])
        expected = answers(model, talk, **{CACHE: copy.deepcopy(cache)}, pixel_values_videos=None)
    assert answers(model, talk, **{CACHE: cache}, pixel_values_videos=None) == expected


def test_crop_brings_a_conversation_back() -> None:
    model, given = shared_model(), RAGGED
    with tp.attach(model, CUT):
        cache = tp.PrunableDynamicCache()
        first = answers(model, given, **{CACHE: cache})
        cache.crop(given.length - 1)
        logits = model(
            input_ids=given.ids[:, -1:],
            attention_mask=given.mask,
            position_ids=given.positions(model)[:, :, -1:],
            **{CACHE: cache},
        ).logits
        assert logits[:, -1, :250].argmax(-1).tolist() == [row[0] for row in first]
        with pytest.raises(tp.UnsupportedCacheError, match="cannot crop"):
            cache.crop(10)


def foreign(kind: str) -> Any:
    model = shared_model()
    text = model.config.get_text_config()
    if kind == "static":
        return StaticCache(config=text, max_cache_len=64)
    if kind == "sliding":
        cache = DynamicCache()
        cache.layers = [DynamicSlidingWindowLayer(sliding_window=4) for _ in range(4)]
        cache.layer_class_to_replicate = None
        return cache
    if kind == "quantised":
        cache = DynamicCache()
        cache.layers = [Quantised() for _ in range(4)]
        cache.layer_class_to_replicate = None
        return cache
    cache = DynamicCache()
    model(input_ids=torch.tensor([[5, 6, 7]]), **{CACHE: cache})
    return cache


class Quantised(QuantizedLayer):
    """A quantised layer without the backend that real ones need."""

    def __init__(self) -> None:
        self.keys = self.values = None
        self.is_initialized = False
        self.cumulative_length = 0

    def _quantize(self, tensor: Any, axis: int) -> Any:
        raise NotImplementedError

    def _dequantize(self, q_tensor: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize("kind", ["static", "sliding", "quantised", "filled"])
def test_foreign_caches_are_refused_and_left_alone(kind: str) -> None:
    model, given = shared_model(), alone(RAGGED, 0)
    cache = foreign(kind)
    layers, before = list(cache.layers), contents(cache)
    with pytest.raises(tp.UnsupportedCacheError):
        make_prunable(cache)
    with tp.attach(model, CUT) as session:
        with counted(model) as calls, pytest.raises(tp.UnsupportedCacheError):
            answers(model, given, **{CACHE: cache})
        assert calls.count == 0
        longer = {"attention_mask": None, CACHE: cache}
        with pytest.raises(tp.UnsupportedCacheError):
            model(**given.inputs() | longer)
        assert session.report is None
    assert all(one is other for one, other in zip(cache.layers, layers))
    assert same_contents(contents(cache), before)


def test_every_foreign_object_is_refused() -> None:
    for thing in (None, (), "cache", type("Cache", (), {})()):
        with pytest.raises(tp.UnsupportedCacheError, match="cannot be pruned; pass no cache"):
            make_prunable(thing)


def test_right_padding_does_not_make_columns_croppable() -> None:
    """A right-padded row stores fewer of its last columns, so nothing can be cropped."""
    model = shared_model()
    one = alone(RAGGED, 0)
    pad = torch.nn.functional.pad
    given = Prompt(
        torch.cat([one.ids, pad(one.ids[:, :-2], (0, 2))]),
        torch.cat([one.mask, pad(one.mask[:, :-2], (0, 2))]),
        one.clips * 2,
        one.prefills,
    )
    with tp.attach(model, CUT):
        cache = cache_of(model(**given.inputs()))
        with pytest.raises(tp.UnsupportedCacheError, match="only the last 0"):
            cache.crop(-1)
