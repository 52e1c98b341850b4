# SPDX-License-Identifier: Apache-2.0
"""The presses against their slow references on made-up layers, and by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from oracles.methods.in_llm import PRESSES
from oracles.methods.infinipotv import reference as infinipot
from oracles.seen import Seen, method_layers

import tokenprune as tp
from tokenprune.tokens import TokenSpan

LAYERS = {seen.name: seen for seen in method_layers()}
BUDGETS: list[dict[str, Any]] = [{"keep": 1}, {"keep_ratio": 0.1}, {"keep_ratio": 0.29}, {"keep_ratio": 0.6}]
CLOSE = 1e-5
"""Decisions closer than this an operator may take either way, since it reads fp32."""
SETTINGS: list[tuple[type, dict[str, Any]]] = [
    (tp.SnapKV, {"window": 32, "kernel": 5}),
    (tp.SnapKV, {"window": 2, "kernel": 3}),
    (tp.SnapKV, {"window": 1, "kernel": 1}),
    (tp.KNorm, {}),
    (tp.TOVA, {}),
    (tp.InfiniPotV, {}),
    (tp.InfiniPotV, {"tar_ratio": 1.0, "query_ratio": 0.5}),
    (tp.InfiniPotV, {"tar_ratio": 0.3, "query_ratio": 0.0}),
]


def tokens_of(seen: Seen) -> tp.VisualTokens:
    tensors = (torch.from_numpy(x) for x in (seen.queries, seen.keys))
    view = tp.AttentionView.of(*tensors, torch.tensor(seen.visual_columns), torch.from_numpy(seen.values))
    return tp.VisualTokens(torch.from_numpy(seen.features), seen.grid, signals={"attention": view})


def plans_of(press: Any, tokens: tp.VisualTokens) -> list[tp.TokenPlan]:
    found = press.plan(tokens)
    return [plan.validate() for plan in ([found] if isinstance(found, tp.TokenPlan) else found)]


def kept_by(press: Any, tokens: tp.VisualTokens) -> list[list[int]]:
    return [plan.anchors.tolist() for plan in plans_of(press, tokens)]


def by_hand(
    keys: Sequence[Any], values: Sequence[Any], grid: tuple[int, int, int], queries: Sequence[Any] = ([[0.0]],)
) -> tp.VisualTokens:
    """Keys and values of visual tokens ``(kv_heads, N, d)``, with one text token after them, whose own are zero."""
    text = [[torch.nn.functional.pad(torch.tensor(x, dtype=torch.float32), (0, 0, 0, 1))] for x in (keys, values)]
    (k,), (v,) = text
    view = tp.AttentionView.of(torch.tensor(queries), k, torch.arange(k.shape[1] - 1), v)
    return tp.VisualTokens(torch.zeros(k.shape[1] - 1, 1), grid, signals={"attention": view})


@pytest.mark.parametrize(("method", "settings"), SETTINGS, ids=str)
def test_it_is_the_reference(method: Any, settings: dict[str, Any]) -> None:
    """The same tokens in each head, and what they were ranked by, on all made-up layers and budgets."""
    close = 0
    for seen in LAYERS.values():
        for budget in BUDGETS:
            expected = PRESSES[method.__name__](seen, **budget, **settings)
            plans = plans_of(method(**budget, **settings), tokens_of(seen))
            assert {plan.kept for plan in plans} == {len(expected.kept[0])}
            if plans[0].is_identity:
                continue
            if expected.scores is not None:
                found = torch.stack([plan.scores for plan in plans if plan.scores is not None])
                np.testing.assert_allclose(found, expected.scores, rtol=1e-4, atol=1e-6)
            if expected.margin < CLOSE:
                close += 1
                continue
            assert [plan.anchors.tolist() for plan in plans] == expected.kept, (seen.name, budget)
    assert close <= 0.2 * len(LAYERS) * len(BUDGETS)


def test_snapkv_by_hand() -> None:
    """Two query heads share a key head: their mean decides; a neighbour of a peak goes before a lone token."""
    keys = [[[0.0], [0.0], [6.0], [0.0], [0.0], [2.0]]]
    tokens = by_hand(keys, keys, (6, 1, 1), queries=[[[1.0]], [[-1.0]]])
    assert kept_by(tp.SnapKV(keep=1, kernel=1), tokens) == [[2]]
    assert kept_by(tp.SnapKV(keep=3, kernel=3), tokens) == [[1, 2, 3]]
    assert kept_by(tp.SnapKV(keep=3, kernel=1), by_hand(keys, keys, (6, 1, 1), [[[1.0]]])) == [[0, 2, 5]]


def test_snapkv_pools_within_each_video() -> None:
    keys = [[[0.0], [0.0], [9.0], [0.0], [0.0], [0.0]]]
    tokens = by_hand(keys, keys, (6, 1, 1), queries=[[[1.0]]])
    assert kept_by(tp.SnapKV(keep=3, kernel=3), tokens) == [[1, 2, 3]]
    spans = (TokenSpan("video", (3, 1, 1), slice(0, 3)), TokenSpan("video", (3, 1, 1), slice(3, 6)))
    assert kept_by(tp.SnapKV(keep=3, kernel=3), replace(tokens, spans=spans)) == [[1, 2, 4]]


def test_snapkv_reads_many_rows_a_piece_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = tokens_of(LAYERS["drifting-41"])
    whole = plans_of(tp.SnapKV(keep=9), tokens)
    monkeypatch.setattr("tokenprune.operators.snapkv.LOGIT_BYTES", 1)
    for one, other in zip(whole, plans_of(tp.SnapKV(keep=9), tokens), strict=True):
        assert torch.equal(one.anchors, other.anchors)


def test_knorm_by_hand() -> None:
    keys = [[[3.0, 4.0], [0.0, -6.0], [5.0, 0.0]], [[1.0, 0.0], [1.0, 1.0], [0.0, 0.5]]]
    assert kept_by(tp.KNorm(keep=1), by_hand(keys, keys, (3, 1, 1))) == [[0], [2]]
    assert kept_by(tp.KNorm(keep=2), by_hand(keys, keys, (3, 1, 1))) == [[0, 2], [0, 2]]


def test_tova_by_hand() -> None:
    """One choice for both key heads, by the mean over all query heads."""
    keys = [[[0.0], [4.0], [3.0]], [[0.0], [0.0], [3.0]]]
    tokens = by_hand(keys, keys, (3, 1, 1), queries=[[[1.0]], [[1.0]]])
    assert kept_by(tp.TOVA(keep=1), tokens) == [[2]]
    assert isinstance(tp.TOVA(keep=1).plan(tokens), tp.TokenPlan)


VALUES = [[[1.0], [2.0], [9.0], [8.0], [1.0], [1.0]]]


def test_infinipot_by_hand() -> None:
    """Three frames of two places; the last is recent. Of the rest frame 0's second token is the least like it."""
    keys = [[[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [1.0, 1.0], [1.0, 0.0], [1.0, 0.0]]]
    tokens = by_hand(keys, VALUES, (3, 2, 1))
    assert kept_by(tp.InfiniPotV(keep=4), tokens) == [[2, 3, 4, 5]]  # the recent frame fills TaR's half
    assert kept_by(tp.InfiniPotV(keep=3), tokens) == [[2, 4, 5]]  # an odd token is TaR's
    assert kept_by(tp.InfiniPotV(keep=2), tokens) == [[1, 2]]  # a frame does not fit into one token: ranked as all are
    assert kept_by(tp.InfiniPotV(keep=3, tar_ratio=1.0), tokens) == [[1, 4, 5]]
    assert kept_by(tp.InfiniPotV(keep=2, tar_ratio=0.0), tokens) == [[2, 3]]
    assert kept_by(tp.InfiniPotV(keep=2), by_hand(keys, VALUES, (1, 3, 2))) == [[2, 3]]  # one frame: values alone


def test_infinipot_after_another_operator() -> None:
    """Places are those of the video; where no recent frame has a token left, nothing is like it."""
    keys = [[[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [1.0, 1.0], [1.0, 0.0], [1.0, 0.0]]]
    expected = [0, 1, 3, 4]
    whole = by_hand(keys, VALUES, (3, 2, 1))
    left = tp.TokenPlan.keeping(torch.tensor(expected), 6).apply(replace(whole, signals={}))
    view = whole.signals["attention"]
    left = replace(left, signals={"attention": replace(view, visual_columns=view.visual_columns[expected])})
    for keep in (1, 2, 3):
        for tar in (0.5, 1.0):
            found = kept_by(tp.InfiniPotV(keep=keep, tar_ratio=tar), left)
            arrays = [np.asarray(x, dtype=np.float32)[:, expected] for x in (keys, VALUES)]
            assert found == infinipot(*arrays, (3, 2, 1), keep=keep, tar_ratio=tar, ids=expected).kept


def test_infinipot_of_two_videos_and_an_image() -> None:
    """Each video has its own recent frames, latest first while they fit; the image is left to the values."""
    keys = [[[1.0], [-1.0], [1.0], [1.0], [1.0], [-1.0], [1.0], [1.0]]]
    values = [[[1.0], [1.0], [1.0], [1.0], [1.0], [1.0], [1.0], [2.0]]]
    spans = [("image", (1, 1, 1)), ("video", (4, 1, 1)), ("video", (3, 1, 1))]
    edges = [0, 1, 5, 8]
    spans = tuple(TokenSpan(m, g, slice(a, b)) for (m, g), a, b in zip(spans, edges, edges[1:]))
    tokens = replace(by_hand(keys, values, (8, 1, 1)), spans=spans)

    def kept(keep: int, **more: Any) -> list[int]:
        return kept_by(tp.InfiniPotV(keep=keep, tar_ratio=1.0, **more), tokens)[0]

    assert kept(1) == [4]
    assert kept(2) == [4, 7]
    assert kept(3) == [1, 4, 7]  # then the least like its video's last frame
    assert kept(4) == [1, 4, 5, 7]
    assert kept(4, query_ratio=0.7) == [3, 4, 6, 7]  # two recent frames of each
    assert kept_by(tp.InfiniPotV(keep=2, tar_ratio=0.0), tokens) == [[0, 7]]


@pytest.mark.parametrize("press", [tp.SnapKV(keep=1), tp.KNorm(keep=1), tp.TOVA(keep=1), tp.InfiniPotV(keep=1)])
def test_what_cannot_be_ranked_is_refused(press: Any) -> None:
    broken = [[[float("nan")], [1.0]]]
    with pytest.raises(tp.InvalidValueError, match=f"scores of {type(press).__name__} must be numbers"):
        press.plan(by_hand(broken, broken, (2, 1, 1), queries=[[[1.0]]]))
    with pytest.raises(tp.InvalidValueError, match="carry no attention"):
        press.plan(tp.VisualTokens(torch.zeros(2, 1), (2, 1, 1)))


def test_what_is_not_allowed_is_refused() -> None:
    for method, arguments in [
        (tp.SnapKV, {"window": 0}),
        (tp.SnapKV, {"window": 1.5}),
        (tp.SnapKV, {"kernel": 4}),
        (tp.SnapKV, {"kernel": True}),
        (tp.InfiniPotV, {"tar_ratio": 1.1}),
        (tp.InfiniPotV, {"query_ratio": -0.1}),
        (tp.KNorm, {"modalities": "video"}),
    ]:
        with pytest.raises(tp.InvalidValueError, match=next(iter(arguments))):
            method(keep=1, **arguments)
    with pytest.raises(tp.BudgetError):
        tp.TOVA()


def test_what_each_reads() -> None:
    assert tp.SnapKV(keep=1).needs == tp.TOVA(keep=1).needs == ("attention",)
    assert tp.KNorm(keep=1).needs == tp.InfiniPotV(keep=1).needs == ()
