# SPDX-License-Identifier: Apache-2.0
"""Layers by index and by fraction of the depth."""

from __future__ import annotations

import pytest

from tokenprune.errors import InvalidValueError
from tokenprune.layers import check_layer, resolve_layer


@pytest.mark.parametrize(
    ("layer", "depth", "index"),
    [
        (0.36, 28, 10),
        (0.36, 36, 12),
        (0.36, 80, 28),
        (0.36, 1, 0),
        (0.36, 2, 0),
        (0.29, 100, 29),  # 28 if the float were multiplied
        (0.999, 28, 27),
        (0, 28, 0),
        (27, 28, 27),
    ],
)
def test_fractions_are_read_as_written_and_rounded_down(layer: float, depth: int, index: int) -> None:
    assert resolve_layer(layer, depth) == index


def test_the_float_product_would_have_been_wrong() -> None:
    assert int(0.29 * 100) == 28


@pytest.mark.parametrize("layer", [1.0, 10.0, 0.0, -0.5, float("nan"), float("inf"), -1, True, False, "10", None])
def test_other_layers_are_refused(layer: object) -> None:
    with pytest.raises(InvalidValueError, match="layer must be a 0-based layer index"):
        check_layer("layer", layer)  # type: ignore[arg-type]


@pytest.mark.parametrize("layer", [28, 29])
def test_a_layer_beyond_the_depth_is_refused(layer: int) -> None:
    with pytest.raises(InvalidValueError, match=rf"layer {layer} lies beyond the model's 28 decoder layers"):
        resolve_layer(layer, 28)
