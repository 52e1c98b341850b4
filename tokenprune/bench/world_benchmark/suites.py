# SPDX-License-Identifier: Apache-2.0
"""The lists of pipelines that are measured together: the table, the sweep of budgets, and one choice at a time."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from tokenprune.bench.world_benchmark.budgets import Decoder
from tokenprune.bench.world_benchmark.entries import METHODS, Entry, Fixed, Matched, Suite, matched_to
from tokenprune.layers import resolve_layer
from tokenprune.named import LAYER, preset, presets
from tokenprune.operators.attn_prune import AttnPrune
from tokenprune.operators.st_merge import STMerge
from tokenprune.operators.uniform_prune import RandomPrune, UniformPrune
from tokenprune.pipeline import Pipeline

PERCENTS = (50, 25, 20, 15, 10)
KEEP = Fraction(2, 5)
"""What stage 2 keeps of stage 1's tokens, as in the default preset."""
SCORERS = ("rope_causal", "content", "norm")
SELECTIONS = ("global", "stratified")


def table(decoder: Decoder) -> Suite:
    """Every preset, then the sweep."""
    swept = sweep(decoder)
    named = [entry for name in presets() for entry in matched_to(Fixed(name, name, preset(name)))]
    return Suite((*named, *swept.entries), swept.unreachable)


def sweep(decoder: Decoder) -> Suite:
    """Stage 1 alone, stage 2 alone, both, random and uniform, each at the same exact budgets."""
    layer = resolve_layer(LAYER, decoder.depth)
    entries: list[Entry] = []
    unreachable: dict[str, str] = {}
    for percent in PERCENTS:
        spend, nominal = _level(decoder, percent, layer), percent / 100
        first = _stage_1(decoder, spend, percent)
        entries.append(first)
        name = f"stage 2 at {percent} %"
        count = decoder.selector_count(spend, layer)
        if count is None:
            unreachable[name] = _floor(decoder, layer)
        else:
            entries.append(Fixed(name, "stage 2", Pipeline([AttnPrune(layer=layer, keep=count)]), nominal=nominal))
        name = f"both at {percent} %"
        pair = decoder.pair(spend, KEEP, layer)
        if pair is None:
            unreachable[name] = f"no two counts spend exactly {spend} tokens over {decoder.depth} layers"
        else:
            entries.append(Fixed(name, "both", _both(pair, layer), nominal=nominal))
        entries += [Matched(f"{method} at {percent} %", method, first.name, nominal) for method in METHODS]
    return Suite(tuple(entries), unreachable)


def ablation(decoder: Decoder) -> Suite:
    """One choice changed at a time: scores and selection, positions, distances, the pruning layer."""
    layer = resolve_layer(LAYER, decoder.depth)
    here = [part(decoder, layer) for part in (_scores, _scores_of_both, _stage_1_choices)]
    parts = [*here, _layers(decoder)]
    entries = [entry for part in parts for entry in part.entries]
    return Suite(tuple(entries), {name: why for part in parts for name, why in part.unreachable.items()})


SUITES: dict[str, Callable[[Decoder], Suite]] = {"table": table, "sweep": sweep, "ablation": ablation}


def _scores(decoder: Decoder, layer: int) -> Suite:
    """Stage 2 alone, so that nothing else decides; chance at the same layer and count beside it."""
    entries: list[Entry] = []
    for percent in (10, 5):
        keep, series = max(1, decoder.tokens * percent // 100), f"stage 2 keeps {percent} %"
        for scorer in SCORERS:
            for select in SELECTIONS:
                pipeline = Pipeline([AttnPrune(layer=layer, keep=keep, scorer=scorer, select=select)])
                entries.append(Fixed(f"{series}: {scorer}, {select}", series, pipeline))
        for name, operator in (("random", RandomPrune(layer, keep=keep)), ("uniform", UniformPrune(layer, keep=keep))):
            entries.append(Fixed(f"{series}: {name}", series, Pipeline([operator])))
    return Suite(tuple(entries))


def _scores_of_both(decoder: Decoder, layer: int) -> Suite:
    entries: list[Entry] = []
    for percent in (15, 10):
        series = f"both at {percent} %"
        pair = decoder.pair(_level(decoder, percent, layer), KEEP, layer)
        if pair is None:
            continue
        both = [
            Fixed(f"{series}: {scorer}, {select}", series, _both(pair, layer, scorer, select), nominal=percent / 100)
            for scorer in SCORERS[:2]
            for select in SELECTIONS
        ]
        entries += [*matched_to(both[0]), *both[1:]]
    return Suite(tuple(entries))


def _stage_1_choices(decoder: Decoder, layer: int) -> Suite:
    """Stage 1 alone: positions counted anew, distances in the features' own scale."""
    entries: list[Entry] = []
    for percent in (50, 25, 10):
        spend = _level(decoder, percent, layer)
        usual = _stage_1(decoder, spend, percent)
        raw = Pipeline([STMerge(keep=spend // decoder.depth, distance_scale="raw")])
        entries += matched_to(usual)
        entries.append(Fixed(f"{usual.name}: renumbered", "renumbered", usual.pipeline, "renumbered", usual.nominal))
        entries.append(Fixed(f"{usual.name}: raw distances", "raw distances", raw, nominal=usual.nominal))
    return Suite(tuple(entries))


def _layers(decoder: Decoder) -> Suite:
    """The pruning layer at one budget: stage 2 alone where its early layers leave room, both at every layer."""
    entries: list[Entry] = []
    unreachable: dict[str, str] = {}
    for layer in range(decoder.depth - 1):
        for percent in (50, 25):
            name = f"stage 2 at {percent} %: after layer {layer}"
            count = decoder.selector_count(_level(decoder, percent, layer), layer)
            if count is None:
                unreachable[name] = _floor(decoder, layer)
            else:
                pipeline = Pipeline([AttnPrune(layer=layer, keep=count)])
                entries.append(Fixed(name, "layer of stage 2", pipeline, nominal=percent / 100))
        for percent in (25, 10):
            name = f"both at {percent} %: after layer {layer}"
            pair = decoder.pair(_level(decoder, percent, layer), KEEP, layer)
            if pair is None:
                unreachable[name] = "no two counts spend exactly that much"
            else:
                entries.append(Fixed(name, "layer of both", _both(pair, layer), nominal=percent / 100))
    return Suite(tuple(entries), unreachable)


def _level(decoder: Decoder, percent: int, layer: int) -> int:
    return decoder.level(Fraction(percent, 100), layer)


def _stage_1(decoder: Decoder, spend: int, percent: int) -> Fixed:
    pipeline = Pipeline([STMerge(keep=spend // decoder.depth)])
    return Fixed(f"stage 1 at {percent} %", "stage 1", pipeline, nominal=percent / 100)


def _both(pair: tuple[int, int], layer: int, scorer: str = "rope_causal", select: str = "global") -> Pipeline:
    return Pipeline([STMerge(keep=pair[0]), AttnPrune(layer=layer, keep=pair[1], scorer=scorer, select=select)])


def _floor(decoder: Decoder, layer: int) -> str:
    floor = decoder.budget(decoder.spend(decoder.tokens, 0, layer))
    return f"layers 0 to {layer} see every token, which alone is {float(floor):.1%} of the budget"
