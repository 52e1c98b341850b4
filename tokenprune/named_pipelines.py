# SPDX-License-Identifier: Apache-2.0
"""The presets: pipelines with names.

Not called ``presets``: a module of that name would hide the function ``tokenprune.presets``.
"""

from __future__ import annotations

from tokenprune.errors import InvalidValueError
from tokenprune.operators.attn_prune import AttnPrune
from tokenprune.operators.st_merge import STMerge
from tokenprune.pipeline import Pipeline

LAYER = 0.36  # layer 10 of the 28 of Qwen2.5-VL-7B, PruneVid's choice, as a fraction that fits other depths

_PRESETS = {
    "conservative": Pipeline(
        [
            STMerge(tau=0.9, cluster_ratio=0.8, temporal_segment_ratio=0.5),
            AttnPrune(layer=LAYER, keep_ratio=0.6),
        ]
    ),
    "default": Pipeline(
        [
            STMerge(tau=0.8, cluster_ratio=0.5, temporal_segment_ratio=0.25),
            AttnPrune(layer=LAYER, keep_ratio=0.4),
        ]
    ),
    "aggressive": Pipeline(
        [
            STMerge(tau=0.7, cluster_ratio=0.3, temporal_segment_ratio=0.25),
            AttnPrune(layer=LAYER, keep_ratio=0.3),
        ]
    ),
    "stage1_only": Pipeline([STMerge(tau=0.8, cluster_ratio=0.5, temporal_segment_ratio=0.25)]),
    "stage2_only": Pipeline([AttnPrune(layer=LAYER, keep_ratio=0.4)]),
    "baseline": Pipeline(),
}


def presets() -> tuple[str, ...]:
    """Names of the presets, from the plainest use to the halves and the plain model."""
    return tuple(_PRESETS)


def preset(name: str) -> Pipeline:
    """The pipeline of this name.

    Raises:
        InvalidValueError: there is no such preset; the message lists them.
    """
    if name not in _PRESETS:
        raise InvalidValueError(f"preset must be one of {', '.join(_PRESETS)}, got {name!r}")
    return _PRESETS[name]
