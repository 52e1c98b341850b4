# SPDX-License-Identifier: Apache-2.0
"""Attention of chosen text rows against a plain softmax in fp64, and the promise that no large matrix is ever alive."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tokenprune import attention_view as module
from tokenprune.attention_view import AttentionView, chosen_rows, piece
from tokenprune.errors import InvalidValueError, UnsupportedModeError
from tokenprune.testing import attention_views


def plain(view: AttentionView, rows: list[int]) -> Tensor:
    """``(heads, R, N)``: all logits at once; a key of mass m is m keys, of which the first is looked at."""
    queries, keys = view.queries().double(), view.keys().double()
    keys = keys.repeat_interleave(len(queries) // len(keys), dim=0)
    places = torch.arange(keys.shape[1])
    seen = (places <= view.text_rows.unsqueeze(1)) & view.valid_keys
    logits = (queries @ keys.mT * view.scaling).where(seen, -torch.inf)
    weights = (logits - logits.amax(-1, keepdim=True)).exp()
    mass = torch.ones(len(places)) if view.mass is None else view.mass
    return (weights / (weights * mass.double()).sum(-1, keepdim=True))[:, rows][..., view.visual_columns]


@settings(max_examples=60)
@given(view=attention_views(), data=st.data())
def test_against_a_plain_softmax(view: AttentionView, data: st.DataObject) -> None:
    count = len(view.text_rows)
    if data.draw(st.booleans(), label="mass"):
        draw = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
        view = replace(view, mass=torch.randint(1, 9, view.valid_keys.shape, generator=draw).float())
    chosen = data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=5), label="indices")
    window = data.draw(st.integers(1, count + 2), label="window")
    limit = data.draw(st.sampled_from([module.LOGIT_BYTES, 1, 400]), label="bytes")
    largest = float((view.queries().double().abs().amax() * view.keys().double().abs().amax()) * view.scaling)
    rtol = 1e-5 + 1e-6 * largest  # a logit is rounded in proportion to its size
    before = module.LOGIT_BYTES
    module.LOGIT_BYTES = limit
    try:
        for which, rows in (
            ("last", [count - 1]),
            ("text", list(range(count))),
            (window, list(range(max(0, count - window), count))),
            (torch.tensor(chosen), chosen),
        ):
            found = view.rows(which)
            assert found.dtype == torch.float32
            torch.testing.assert_close(found.double(), plain(view, rows), rtol=rtol, atol=1e-6)
    finally:
        module.LOGIT_BYTES = before


def view_of(rows: int) -> AttentionView:
    draw = torch.Generator().manual_seed(0)
    queries, keys = torch.randn(4, rows, 8, generator=draw), torch.randn(2, 6 + rows, 8, generator=draw)
    return AttentionView(
        lambda rotated: queries,
        lambda rotated: keys,
        torch.arange(6, 6 + rows),
        torch.arange(1, 5),
        torch.ones(6 + rows, dtype=torch.bool),
        8**-0.5,
    )


@pytest.mark.parametrize(
    "which",
    [
        "first",
        0,
        -1,
        True,
        None,
        1.5,
        torch.tensor([0.0]),
        torch.tensor([3]),
        torch.tensor([-1]),
        torch.tensor([[0]]),
        torch.zeros(0, dtype=torch.int64),
    ],
    ids=str,
)
def test_what_names_no_rows_is_refused(which: Any) -> None:
    with pytest.raises(InvalidValueError, match="which must"):
        view_of(3).rows(which)


def test_no_text_row_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="at least one text row"):
        view_of(0).rows("last")


def test_other_layers_are_refused_by_name() -> None:
    for layer in (-1, 1):
        with pytest.raises(UnsupportedModeError, match="own layer only"):
            view_of(3).rows("last", layer=layer)
    for layer in (2, True, 0.5):
        with pytest.raises(InvalidValueError, match="layer must be -1, 0 or 1"):
            view_of(3).rows("last", layer=layer)  # type: ignore[arg-type]


@pytest.mark.parametrize("group", [1, 6, 7])
@pytest.mark.parametrize("rows", [1, 40, 4000])
@pytest.mark.parametrize("keys", [100, 20_000, 900_000])
def test_a_piece_stays_within_the_limit(group: int, rows: int, keys: int) -> None:
    heads, step = piece(group, rows, keys)
    assert group % heads == 0
    assert 1 <= step <= rows
    assert heads * step * keys * 11 <= module.LOGIT_BYTES


def test_the_last_rows_are_all_where_there_are_fewer() -> None:
    assert chosen_rows(64, 3).tolist() == [0, 1, 2]
