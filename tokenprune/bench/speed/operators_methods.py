# SPDX-License-Identifier: Apache-2.0
"""Every method of the catalogue that has a budget, as the micro-benchmark runs it."""

from __future__ import annotations

from typing import Any

from tokenprune.bench.speed.operators_clip import Clip
from tokenprune.bench.speed.subject import Run, Subject
from tokenprune.catalogue import Method, methods
from tokenprune.operator import AFTER_PREFILL, Schedule, needs_of, site_of
from tokenprune.plan import TokenPlan

BUDGET = 0.25
DEPTH = 28
"""Decoder layers of Qwen2.5-VL-7B, of which a schedule chooses its own."""


def method_subjects(clip: Clip) -> dict[str, Subject]:
    """Name -> one plan that keeps :data:`BUDGET` of the clip, of each method and form.

    Of a schedule it is its last stage, shown all tokens; after the prefill the plan of one layer.
    """
    return dict(_subject(clip, each) for each in methods() if each.has_budget)


def _subject(clip: Clip, method: Method) -> tuple[str, Subject]:
    made = method.cls(**method.settings, keep_ratio=BUDGET)
    given = "".join(f"{name}={value!r}, " for name, value in method.settings.items())
    label = f"{method.name}({given}keep_ratio={BUDGET}): plan"
    if isinstance(made, Schedule):
        return f"{label} of one stage", _planning(clip, made.operators(DEPTH)[-1])
    if site_of(made) == AFTER_PREFILL:
        return f"{label} of one layer", _planning(clip, made)
    return label, _planning(clip, made)


def _planning(clip: Clip, operator: Any) -> Subject:
    def ready() -> Run:
        cached = site_of(operator) == AFTER_PREFILL
        tokens = clip.cached_tokens() if cached else clip.tokens(needs_of(operator))

        def run() -> Any:
            plans = operator.plan(tokens)
            return plans.anchors if isinstance(plans, TokenPlan) else plans[0].anchors

        return run

    return Subject(ready)
