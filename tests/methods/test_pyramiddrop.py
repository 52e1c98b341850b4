# SPDX-License-Identifier: Apache-2.0
"""PyramidDrop: a schedule whose stages read the next layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from methods.held import CLOSE
from methods.inside import LAYERS, stages_kept
from oracles.methods import pyramiddrop

import tokenprune as tp


@pytest.mark.parametrize("ratios", [None, (0.6, 0.2), (0.9, 0.9, 0.3, 0.0)], ids=str)
def test_it_is_the_reference(ratios: tuple[float, ...] | None) -> None:
    held = []
    for seen in LAYERS.values():
        rows = seen.next_layer().rows("last")

        def rows_at(stage: int, there: list[int], rows: np.ndarray = rows) -> np.ndarray:
            return rows[:, :, there]

        shares = [ratio or 1e-9 for ratio in ratios or (0.5, 0.25, 0.125)]
        expected = pyramiddrop.reference(seen.features, rows_at, ratios=shares)
        layers = None if ratios is None else tuple(range(len(ratios)))
        kept = stages_kept(tp.PyramidDrop(ratios=ratios, layers=layers), seen)
        assert [len(stage) for stage in kept] == [len(stage) for stage in expected.kept]
        held.append(min(plan.margin for plan in expected.plans) >= CLOSE)
        if held[-1]:
            assert kept == expected.kept
    assert sum(held) > 0.6 * len(held)


@pytest.mark.parametrize(("depth", "layers"), [(32, [7, 15, 23]), (28, [6, 13, 20]), (4, [0, 1, 2])])
def test_the_stages_are_quarters_of_the_depth(depth: int, layers: list[int]) -> None:
    assert [stage.layer for stage in tp.PyramidDrop().operators(depth)] == layers  # type: ignore[attr-defined]
    assert tp.Pipeline([tp.PyramidDrop(), tp.AttnPrune(layer=depth - 1, keep=1)]).layers(depth) == [*layers, depth - 1]


@pytest.mark.parametrize(
    ("budget", "counts"),
    [
        ({}, [500, 250, 125]),
        ({"keep_ratio": 0.125}, [500, 250, 125]),
        ({"keep": 125}, [500, 250, 125]),
        ({"keep": 1}, [100, 10, 1]),
        ({"keep": 1000}, [1000, 1000, 1000]),
        ({"keep_ratio": 0.001}, [100, 10, 1]),
        ({"ratios": (0.7, 0.33, 0)}, [700, 330, 1]),
        ({"keep_ratio": 0.25, "layers": (3, 9)}, [500, 250]),
    ],
    ids=str,
)
def test_budgets_come_down_by_equal_factors(budget: dict[str, Any], counts: list[int]) -> None:
    assert [stage.budget(1000) for stage in tp.PyramidDrop(**budget).operators(32)] == counts  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"keep": 3, "ratios": (0.5,)}, tp.BudgetError),
        ({"keep": 3, "keep_ratio": 0.5}, tp.BudgetError),
        ({"ratios": (0.2, 0.5)}, tp.BudgetError),
        ({"ratios": ()}, tp.BudgetError),
        ({"ratios": (1.5,)}, tp.BudgetError),
        ({"ratios": "half"}, tp.BudgetError),
        ({"layers": (3, 7)}, tp.InvalidValueError),
        ({"layers": (3, 7, -1)}, tp.InvalidValueError),
        ({"layers": ()}, tp.InvalidValueError),
    ],
    ids=str,
)
def test_what_is_not_allowed_is_refused(arguments: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        tp.PyramidDrop(**arguments)
