# SPDX-License-Identifier: Apache-2.0
"""FastV: what the last text token attends to."""

from __future__ import annotations

import pytest
from methods.inside import agrees_on_all_layers
from oracles.methods import fastv

import tokenprune as tp


def test_it_is_the_reference() -> None:
    agrees_on_all_layers(tp.FastV, lambda seen, **budget: fastv.reference(seen.features, seen.rows("last"), **budget))


def test_its_words() -> None:
    operator = tp.FastV(keep_ratio=0.5)
    assert (operator.layer, operator.site, operator.needs, operator.reads) == (
        1,
        "after_layer",
        ("attention",),
        ("attention",),
    )
    with pytest.raises(tp.BudgetError):
        tp.FastV()
    with pytest.raises(tp.InvalidValueError, match="layer"):
        tp.FastV(layer=-1, keep=3)
    with pytest.raises(tp.InvalidValueError, match="modalities"):
        tp.FastV(keep=3, modalities=("sound",))
