# SPDX-License-Identifier: Apache-2.0
"""What an operator reads of the layer before and after its own is what those layers compute, in every family."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from families.tiny import CASES, Tiny, prompt, tiny_model
from torch import Tensor

import tokenprune as tp

KNOWN = [case for case in CASES if case.model_class is not None]
HYBRIDS = [case for case in KNOWN if str(case).startswith("qwen3_5")]
"""Of these not every layer has attention."""
WHOLE = [case for case in KNOWN if case not in HYBRIDS]
METHODS: list[Any] = [tp.PyramidDrop(), tp.V2Drop(), tp.SparseVLM(), tp.DART(keep=3)]


@dataclass(frozen=True)
class Rows:
    """Remembers how the text attends after a layer, in the layers ``offsets`` from it, and keeps everything."""

    layer: int
    offsets: tuple[int, ...]
    seen: list[dict[int, Tensor]] = field(default_factory=list[dict[int, Tensor]])

    site = "after_layer"
    needs = ("attention",)

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        view: tp.AttentionView = tokens.signals["attention"]
        self.seen.append({n: view.rows("text", layer=n) for n in self.offsets})
        return tp.TokenPlan.identity(len(tokens))


@pytest.mark.parametrize("case", WHOLE, ids=str)
def test_the_neighbours_are_read_as_they_are(case: Tiny) -> None:
    model, given = tiny_model(case), prompt(case, case.rows[:2], [0, 1])

    def rows(*stages: Rows) -> list[list[dict[int, Tensor]]]:
        with tp.attach(model, tp.Pipeline(stages)), torch.no_grad():
            model(**given.inputs)
        return [stage.seen for stage in stages]

    first, third = rows(Rows(0, (0, 1)), Rows(2, (0, -1)))
    [second] = rows(Rows(1, (-1, 0, 1)))
    for one, two, three in zip(first, second, third, strict=True):
        for found, wanted in ((two[-1], one[0]), (one[1], two[0]), (three[-1], two[0]), (two[1], three[0])):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("case", KNOWN, ids=str)
@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_methods_run_in_every_family_or_are_refused(case: Tiny, method: Any) -> None:
    model, given = tiny_model(case), prompt(case, case.rows[:2], [0, 1])
    if case in HYBRIDS and not isinstance(method, tp.V2Drop):
        with pytest.raises(tp.InvalidValueError, match="attention"):
            tp.attach(model, method)
        return
    with tp.attach(model, method) as session, torch.no_grad():
        model(**given.inputs, use_cache=True)
    assert session.report is not None
    last = session.report.stages[-1]
    assert all(after < before for before, after in zip(session.report.visual_tokens, last["visual_after"]))
