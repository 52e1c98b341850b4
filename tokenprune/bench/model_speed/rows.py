# SPDX-License-Identifier: Apache-2.0
"""Figures to the rows of a result: times with the vision encoder, ratios of paired runs, speed-ups and ceilings."""

from __future__ import annotations

from collections.abc import Mapping

from tokenprune.bench.model_speed.decoder_sizes import decoder_shape
from tokenprune.bench.model_speed.runs import Bench, Facts, Subject, operator_seconds
from tokenprune.bench.speed.arithmetic import kv_bytes, prefill_flops
from tokenprune.bench.speed.figures import Figure
from tokenprune.bench.speed.result import OperatorCost, SpeedRow, Speedup

Figures = Mapping[str, Figure]

PREFILL = "llm_prefill_seconds"
FIRST = "time_to_first_token_seconds"
ANSWER = "answer_seconds"
DECODE = "decode_tokens_per_second"
PEAK = "peak_memory_bytes"

_COMPARED = {
    "llm_prefill / plain": PREFILL,
    "decode tokens/s / plain": DECODE,
    "answer / plain": ANSWER,
    "peak_memory / plain": PEAK,
}


def with_vision(figures: Figures, vision: Figure) -> dict[str, Figure]:
    """A subject's figures, the vision encoder's seconds of the same round added where an answer was generated.

    The encoder does the same for everyone, so each round runs it once for all.
    """
    complete = dict(figures)
    for name, without in ((FIRST, "first_token_seconds"), (ANSWER, "whole_seconds")):
        if without in complete:
            pairs = zip(complete.pop(without).values, vision.values)
            complete[name] = Figure(tuple(mine + its for mine, its in pairs))
    return complete


def make_row(
    bench: Bench, subject: Subject, facts: Facts, figures: Figures, plain: Figures | None, lower: Figures | None
) -> SpeedRow:
    """One subject's row.

    Args:
        bench: what was run.
        subject: who ran.
        facts: what it computed and stored.
        figures: with the vision encoder's seconds.
        plain: the plain model's, None where it did not run or is this subject.
        lower: of this subject's lower bound, where there is one.
    """
    shape = decoder_shape(bench.parts.text)
    formula = kv_bytes(shape, bench.prompt.rows, facts.longest, bench.parts.text.dtype.itemsize)
    peak = figures.get(PEAK)
    return SpeedRow(
        name=subject.name,
        role=subject.role,
        figures={name: figures[name] for name in (PREFILL, FIRST, ANSWER, DECODE) if name in figures},
        peak_memory_bytes=None if peak is None else int(peak.median),
        layer_tokens=facts.layer_tokens,
        prefill_flops=prefill_flops(shape, facts.layer_tokens),
        kv_bytes=facts.kv_bytes,
        kv_bytes_by_formula=formula,
        operators=_operators(facts, figures),
        ratios=_ratios(figures, plain, lower),
        speedups=_speedups(figures, plain),
        pipeline=None if subject.pipeline is None else subject.pipeline.to_dict(),
    )


def _operators(facts: Facts, figures: Figures) -> list[OperatorCost]:
    return [
        OperatorCost(
            operator=stage["operator"],
            site=stage["site"],
            layer=stage["layer"],
            seconds=figures[operator_seconds(place)],
            visual_before=stage["visual_before"],
            visual_after=stage["visual_after"],
        )
        for place, stage in enumerate(facts.stages)
    ]


def _ratios(figures: Figures, plain: Figures | None, lower: Figures | None) -> dict[str, Figure]:
    ratios: dict[str, Figure] = {}
    if lower is not None:
        ratios["llm_prefill / lower bound"] = figures[PREFILL].over(lower[PREFILL])
    for name, quantity in _COMPARED.items():
        if plain is not None and quantity in figures and quantity in plain:
            ratios[name] = figures[quantity].over(plain[quantity])
    return ratios


def _speedups(figures: Figures, plain: Figures | None) -> dict[str, Speedup]:
    """What an infinitely fast LLM prefill would give is the ceiling; a shorter cache can lift an answer above it."""
    speedups: dict[str, Speedup] = {}
    for name, quantity in (("time_to_first_token", FIRST), ("answer", ANSWER)):
        if plain is not None and quantity in figures and quantity in plain:
            share = plain[PREFILL].median / plain[quantity].median
            speedups[name] = Speedup(plain[quantity].over(figures[quantity]), 1 / (1 - share))
    return speedups
