# SPDX-License-Identifier: Apache-2.0
"""A method at a layer-averaged budget: the number it is given so that the decoder sees no more tokens than that."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import Any

from tokenprune.bench.world_benchmark.budgets import Decoder
from tokenprune.budget import Budget
from tokenprune.catalogue import Method, method
from tokenprune.operator import AFTER_LAYER, AFTER_PREFILL
from tokenprune.pipeline import Pipeline

CHOSEN: Mapping[str, Mapping[str, Any]] = {"CDPruner": {"relevance": "text"}}
"""Parameters without which a method would need what no benchmark can give."""

SECOND_HALVES: Mapping[str, tuple[str, float]] = {"FlashVIDInner": ("FlashVID", 0.3), "HoliTomInner": ("HoliTom", 0.5)}
"""Second half of a method -> the first, which acts before the LLM, and the published share of its tokens that stays."""


def series_of(chosen: Method) -> str:
    """How a method's rows are named: with its variant, a second half with the first, a press with when it acts.

    >>> series_of(method("HoliTomInner")), series_of(method("KNorm"))
    ('HoliTom+HoliTomInner', 'KNorm before the question')
    """
    if chosen.site == AFTER_PREFILL:
        return f"{chosen.name} before the question"
    if chosen.name in SECOND_HALVES:
        return f"{SECOND_HALVES[chosen.name][0]}+{chosen.name}"
    return chosen.title


def at_ratio(chosen: Method, ratio: float) -> Pipeline:
    """A method whose ratio is the budget whatever the model: before the LLM the layer-averaged one, after the prefill
    that of the cache.

    >>> at_ratio(method("EVS"), 0.1)
    Pipeline(operators=(EVS(keep_ratio=0.1, keep=None),), mass=None)
    """
    return Pipeline([chosen.cls(keep_ratio=ratio, **_given(chosen))])


def at_budget(chosen: Method, ratio: float, decoder: Decoder) -> Pipeline | str:
    """A method at its paper's layers, at a budget that is averaged over all of them.

    Inside the LLM it keeps as many tokens as it can, while all layers together see no more than after a method before
    the LLM that keeps ``ratio``: a schedule comes down to its last stage by its own steps, a second half keeps its
    published share of what the first leaves, which at large budgets may be all. After the prefill, through which all
    layers see every token, ``ratio`` is what the cache of each of them keeps.

    Args:
        chosen: the method.
        ratio: layer-averaged fraction **kept**, in (0, 1].
        decoder: what budgets are counted in.

    Returns:
        The pipeline; where there is none that spends so little, the reason.
    """
    if chosen.site != AFTER_LAYER:
        return at_ratio(chosen, ratio)
    wanted = decoder.depth * Budget(ratio).count(decoder.tokens)
    keeping = _second_half(chosen) if chosen.name in SECOND_HALVES else _alone(chosen)
    if decoder.spent_by(keeping(1)) is None:
        return "how many tokens it will leave is known only from the clip"
    kept = bisect_right(range(1, decoder.tokens + 1), wanted, key=lambda keep: decoder.spent_by(keeping(keep)) or 0)
    if kept:
        return keeping(kept)
    least = keeping(1)
    layers = ", ".join(map(str, least.layers(decoder.depth)))
    floor = float(decoder.budget(decoder.spent_by(least) or 0))
    return f"a single token kept after layer {layers} of {decoder.depth} is a budget of {floor:.1%} already"


def _given(chosen: Method) -> Mapping[str, Any]:
    return {**chosen.settings, **CHOSEN.get(chosen.name, {})}


def _alone(chosen: Method) -> Callable[[int], Pipeline]:
    return lambda keep: Pipeline([chosen.cls(keep=keep, **_given(chosen))])


def _second_half(chosen: Method) -> Callable[[int], Pipeline]:
    first, share = SECOND_HALVES[chosen.name]
    return lambda keep: Pipeline([method(first).cls(keep=keep), chosen.cls(keep_ratio=share)])
