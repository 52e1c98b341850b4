# SPDX-License-Identifier: Apache-2.0
"""What a pressed cache knows of its tokens, head by head, follows everything that is done to the cache."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("transformers")

from tokenprune.errors import UnsupportedCacheError
from tokenprune.hf import PrunableLayer

LENGTH, WHOLE_FROM = 6, 5
KEPT = [[[0, 2, 4, 5], [1, 2, 3, 5]], [[0, 1, 2, 5], [0, 3, 4, 5]]]
"""Per row and head; the columns from 5 on are text."""


def append(layer: PrunableLayer, length: int) -> None:
    """Keys are the logical columns they stand at, plus 1000 a row."""
    start = layer.get_seq_length() if layer.is_initialized else 0
    rows = layer.keys[:, 0, 0, 0] // 1000 if layer.is_initialized else torch.arange(2)
    keys = (1000 * rows[:, None] + torch.arange(start, start + length)).float()
    keys = keys[:, None, :, None].expand(-1, 2, -1, 3)
    layer.update(keys, -keys)


def pressed() -> PrunableLayer:
    layer = PrunableLayer()
    append(layer, LENGTH)
    index = torch.tensor(KEPT)
    layer.press(index, index[:, 0], None, WHOLE_FROM)
    return layer


def holds(layer: PrunableLayer) -> Tensor:
    """What each head holds, as the keys say it; the layer must say the same."""
    columns = layer.keys[..., 0].long() % 1000
    assert torch.equal(layer.slot_columns_by_head(), columns)
    assert torch.equal(layer.values, -layer.keys)
    return columns


def test_each_head_knows_its_columns() -> None:
    layer = pressed()
    assert holds(layer).tolist() == KEPT
    append(layer, 2)
    assert holds(layer).tolist() == [[[*head, 6, 7] for head in row] for row in KEPT]
    assert layer.get_seq_length() == LENGTH + 2


@pytest.mark.parametrize(
    ("move", "rows"),
    [
        (lambda layer: layer.reorder_cache(torch.tensor([1, 1])), [1, 1]),
        (lambda layer: layer.batch_select_indices(torch.tensor([1])), [1]),
        (lambda layer: layer.batch_repeat_interleave(2), [0, 0, 1, 1]),
    ],
    ids=["reorder", "select", "repeat"],
)
def test_rows_move_with_their_heads(move: Any, rows: list[int]) -> None:
    layer = copy.deepcopy(pressed())
    move(layer)
    assert holds(layer).tolist() == [KEPT[row] for row in rows]
    append(layer, 1)
    holds(layer)


def test_a_later_cut_and_a_later_press() -> None:
    layer = pressed()
    append(layer, 3)
    index = torch.tensor([[1, 2, 3, 5, 6], [0, 2, 3, 4, 6]])
    layer.take(index, layer.slot_columns().gather(1, index), None)
    assert holds(layer)[0].tolist() == [[2, 4, 5, 7, 8], [2, 3, 5, 7, 8]]
    append(layer, 1)
    one_for_all = torch.tensor([[0, 1, 5], [0, 1, 5]])
    layer.press(one_for_all, layer.slot_columns().gather(1, one_for_all), None, 9)
    assert holds(layer)[1].tolist() == [[0, 2, 9], [0, 4, 9]]


def test_crop_stops_where_heads_differ() -> None:
    layer = pressed()
    append(layer, 2)
    layer.crop(-2)
    assert holds(layer).tolist() == KEPT
    layer.crop(-1)
    assert layer.get_seq_length() == LENGTH - 1
    with pytest.raises(UnsupportedCacheError, match="only the last 0"):
        layer.crop(-1)  # column 4 is still there in head 0 of row 0, not in its head 1
    holds(layer)


def test_reset_forgets_the_heads() -> None:
    layer = pressed()
    layer.reset()
    append(layer, 3)
    assert layer.slot_columns_by_head().tolist() == [[[0, 1, 2]]] * 2
