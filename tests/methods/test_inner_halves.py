# SPDX-License-Identifier: Apache-2.0
"""The inner halves of FlashVID and HoliTom."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from methods.inside import LAYERS, agrees_on_all_layers, tokens_of
from oracles.methods import fastv, holitom_inner

import tokenprune as tp


def test_flashvid_is_the_reference() -> None:
    agrees_on_all_layers(
        tp.FlashVIDInner, lambda seen, **budget: fastv.reference(seen.features, seen.rows("last"), **budget)
    )


def test_holitom_is_the_reference() -> None:
    agrees_on_all_layers(
        tp.HoliTomInner, lambda seen, **budget: holitom_inner.reference(seen.features, seen.rows("last"), **budget)
    )


def test_the_last_that_is_folded_in_counts_for_a_half() -> None:
    tokens = tokens_of(LAYERS["random-46"])
    plan = tp.HoliTomInner(keep=1).plan(tokens)
    [anchor] = plan.anchors.tolist()
    value = tokens.features[anchor].double()
    for place in range(len(tokens)):
        if place != anchor:
            value = (value + tokens.features[place].double()) / 2
    torch.testing.assert_close(plan.apply(tokens).features[0].double(), value, rtol=1e-5, atol=1e-6)
    assert plan.apply(tokens).sizes.tolist() == [9]  # type: ignore[union-attr]


def test_thousands_that_are_folded_in_leave_finite_weights() -> None:
    count = 3000
    view = tokens_of(LAYERS["random-46"]).signals["attention"]
    keys = torch.randn(2, count + 1, 4)
    long = replace(
        view, read_keys=lambda rotated: keys, visual_columns=torch.arange(count), text_rows=torch.tensor([count]),
        read_queries=lambda rotated: torch.ones(4, 1, 4), valid_keys=torch.ones(count + 1, dtype=torch.bool),
    )  # fmt: skip
    tokens = tp.VisualTokens(torch.randn(count, 5), (count, 1, 1), signals={"attention": long})
    merged = tp.HoliTomInner(keep=1).plan(tokens).validate().apply(tokens)
    assert bool(merged.features.isfinite().all())


@pytest.mark.parametrize("method", [tp.FlashVIDInner, tp.HoliTomInner])
def test_the_layers_of_the_paper(method: type) -> None:
    layer = {tp.FlashVIDInner: 19, tp.HoliTomInner: 17}[method]
    assert tp.Pipeline([method(keep=3)]).layers(28) == [layer]
    with pytest.raises(tp.BudgetError):
        method()


def test_nan_is_refused() -> None:
    tokens = tokens_of(LAYERS["random-43"])
    view = replace(tokens.signals["attention"], read_queries=lambda rotated: torch.full((4, 6, 4), torch.nan))
    for method in (tp.FlashVIDInner, tp.HoliTomInner):
        with pytest.raises(tp.InvalidValueError, match="NaN"):
            method(keep=3).plan(replace(tokens, signals={"attention": view}))
