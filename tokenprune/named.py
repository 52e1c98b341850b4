# SPDX-License-Identifier: Apache-2.0
"""The presets: pipelines with names; and whatever else stands for a pipeline.

Not called ``presets``: a module of that name would hide the function ``tokenprune.presets``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from tokenprune.errors import InvalidValueError
from tokenprune.messages import not_one_of, shown
from tokenprune.operator import Operator, Schedule
from tokenprune.operators.attn_prune import AttnPrune
from tokenprune.operators.cover import Cover
from tokenprune.operators.st_merge import STMerge
from tokenprune.pipeline import LEFT_OUT, Pipeline

AnyPipeline: TypeAlias = Pipeline | Operator | Schedule | Sequence[Operator | Schedule] | str
"""What stands for a pipeline: itself, one operator, operators in a sequence, or a preset's name."""

RECOMMENDED = "recommended"
"""The preset that is used where nothing is named."""

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
    RECOMMENDED: Pipeline([Cover(keep_ratio=0.15)], mass="sizes"),
    # For engines whose attention takes no bias: half of the budget goes to evenly spread tokens instead.
    "recommended_serving": Pipeline([Cover(keep_ratio=0.15, spread=0.5)], mass=None),
}


def presets() -> tuple[str, ...]:
    """Names of the presets: PruneVid's two stages, each of them alone, the plain model, and what figures recommend.

    >>> presets()[:3]
    ('conservative', 'default', 'aggressive')
    """
    return tuple(_PRESETS)


def preset(name: str, *, mass: str | object | None = LEFT_OUT) -> Pipeline:
    """The pipeline of this name.

    >>> tp.preset("default", mass="sizes").mass
    'sizes'

    Args:
        name: one of :func:`presets`.
        mass: as in :class:`Pipeline`, in place of the preset's own.

    Raises:
        InvalidValueError: there is no such preset, the message lists them; or ``mass`` is not allowed.
    """
    if not isinstance(name, str) or name not in _PRESETS:
        raise InvalidValueError(not_one_of("preset", _PRESETS, name))
    found = _PRESETS[name]
    return found if mass is LEFT_OUT else Pipeline(found.operators, mass=mass)  # type: ignore[arg-type]


def as_pipeline(given: AnyPipeline) -> Pipeline:
    """A pipeline of what stands for one.

    >>> len(as_pipeline("default")), len(as_pipeline(tp.STMerge()))
    (2, 1)

    Args:
        given: a pipeline, a preset's name, one operator, or a sequence of operators.

    Raises:
        InvalidValueError: anything else, or operators that make no pipeline.
    """
    if isinstance(given, Pipeline):
        return given
    if isinstance(given, str):
        return preset(given)
    if isinstance(given, (Operator, Schedule)) and not isinstance(given, type):
        return Pipeline([given])
    if isinstance(given, Sequence) and not isinstance(given, (bytes, bytearray)):
        return Pipeline(given)
    raise InvalidValueError(
        "pipeline must be a Pipeline, an operator, a sequence of operators or a preset's name "
        f"({', '.join(_PRESETS)}), got {shown(given)}"
    )
