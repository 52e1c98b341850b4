# SPDX-License-Identifier: Apache-2.0
"""Where in the decoder an operator acts: a layer index, or a fraction of the depth."""

from __future__ import annotations

import math
from collections.abc import Collection
from fractions import Fraction

from tokenprune.errors import InvalidValueError
from tokenprune.messages import shown


def check_layer(name: str, layer: int | float) -> int | float:
    """Return ``layer`` if it is a 0-based int or a float in (0, 1); raise :class:`InvalidValueError` otherwise."""
    allowed = "a 0-based layer index (int) or a fraction of the depth (float in (0, 1))"
    if isinstance(layer, bool) or not isinstance(layer, (int, float)):
        raise InvalidValueError(f"{name} must be {allowed}, got {shown(layer)}")
    if isinstance(layer, int):
        if layer < 0:
            raise InvalidValueError(f"{name} must be {allowed}, got {shown(layer)}")
    elif not (math.isfinite(layer) and 0.0 < layer < 1.0):
        raise InvalidValueError(f"{name} must be {allowed}, got {shown(layer)}")
    return layer


def resolve_layer(layer: int | float, depth: int, readable: Collection[int] | None = None) -> int:
    """The 0-based index of ``layer`` in a decoder of ``depth`` layers; a fraction is rounded down.

    >>> resolve_layer(0.36, 28), resolve_layer(0.36, 28, readable=(3, 7, 11, 15))
    (10, 7)

    Args:
        layer: an index, or a fraction of the depth.
        depth: number of layers.
        readable: the only layers that will do: a fraction means the last of them that it has reached, or the first.

    Raises:
        InvalidValueError: the index lies beyond the depth, or is none of those that will do.
    """
    check_layer("layer", layer)
    index = layer if isinstance(layer, int) else math.floor(Fraction(str(layer)) * depth)
    if index >= depth:
        raise InvalidValueError(
            f"layer {shown(index)} lies beyond the model's {depth} decoder layers (0 to {depth - 1})"
        )
    if readable is None or index in readable:
        return index
    if isinstance(layer, int):
        some = ", ".join(map(str, sorted(readable)))
        raise InvalidValueError(f"layer {index} has no attention that can be read; layers that have are {some}")
    return max((each for each in readable if each <= index), default=min(readable))
