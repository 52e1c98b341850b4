# SPDX-License-Identifier: Apache-2.0
"""Every family of the table keeps the laws of adapters, on a tiny random model of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

pytest.importorskip("transformers")

from families.tiny import CASES, Tiny, prompt, timed_patches, tiny_model
from torch import nn

from tokenprune.testing import AdapterConformance, VisualPrompt


def conformance(case: Tiny) -> type:
    """A test class for one family."""

    class Conformance(AdapterConformance):
        rows = len(case.rows)
        images = case.images
        carried = case.family.carried
        recurrent = case.recurrent
        needs_mask = case.pixels is timed_patches
        tolerance = 5e-4 if case.recurrent else 1e-4  # a chunk kernel rounds more, and more so behind padding

        def make_model(self) -> Any:
            return tiny_model(case)

        def decoder(self, model: Any) -> nn.Module:
            return model.get_submodule(case.family.placed(model).text)

        def make_prompt(self, rows: Sequence[int]) -> VisualPrompt:
            return prompt(case, [case.rows[row] for row in rows], rows)

    missing = case.model_class is None
    return pytest.mark.skipif(missing, reason=f"this release has no {case.family.model_class}")(Conformance)


for _case in CASES:
    _name = "Test" + "".join(word.title() for word in str(_case).split("_"))
    globals()[_name] = type(_name, (conformance(_case),), {"__module__": __name__})
