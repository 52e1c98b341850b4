# SPDX-License-Identifier: Apache-2.0
"""The plain prefill that times of operators are a share of."""

from __future__ import annotations

from collections.abc import Mapping

from tokenprune.bench.speed.arithmetic import Attention, DecoderShape, prefill_flops
from tokenprune.bench.speed.figures import Figure
from tokenprune.bench.speed.operators_counting import Key
from tokenprune.bench.speed.operators_prefill import LAYER
from tokenprune.bench.speed.operators_request import OperatorsRequest


def prefill_seconds(
    frames: int, seconds: Mapping[Key, Figure], request: OperatorsRequest
) -> tuple[Figure | None, int | None]:
    """Seconds of the plain prefill of a clip, and the frames of the clip whose layer was measured for that."""
    at = max((count for count, name in seconds if name == LAYER and count <= frames), default=None)
    if at is None:
        return None, None
    sizes = request.attention
    attention = Attention(sizes.heads, sizes.kv_heads, sizes.head_dim)
    layer = DecoderShape(request.width, (attention,), (request.intermediate,))
    work, measured = (prefill_flops(layer, [[count * request.length]]) for count in (frames, at))
    factor = request.layers * work / measured
    return Figure(tuple(factor * value for value in seconds[at, LAYER].values)), at
