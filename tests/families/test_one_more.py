# SPDX-License-Identifier: Apache-2.0
"""One more family is a row and a test: the row that the guide shows keeps the laws."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

from families.tiny import CASES, GLM_ROPE, prompt, tiny_model
from torch import nn

from tokenprune import plugins
from tokenprune.hf.families.adapter import FamiliesAdapter
from tokenprune.loading import Plugin, PluginInfo
from tokenprune.registry import PluginRegistry
from tokenprune.testing import AdapterConformance, VisualPrompt

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "your-model-in-one-row.md"
SHOWN = next(
    text for text in re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL) if "GLM_OCR" in text
)


def shown_row() -> Any:
    names: dict[str, Any] = {}
    exec(compile(SHOWN, GUIDE.name, "exec"), names)  # noqa: S102
    return names["GLM_OCR"]


[LIKE] = [case for case in CASES if str(case) == "glm4v"]
TEXT = {**LIKE.config["text_config"], "head_dim": 8, "rope_parameters": GLM_ROPE}
CASE = replace(LIKE, family=shown_row(), config={**LIKE.config, "text_config": TEXT})


@pytest.fixture(autouse=True)
def _offered(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = FamiliesAdapter(families=(CASE.family,), declined={}, name="glm_ocr")
    monkeypatch.setattr(plugins, "_default", PluginRegistry((Plugin(PluginInfo("glm_ocr"), adapters=(adapter,)),)))


def test_the_row_is_short() -> None:
    assert len(SHOWN.strip().splitlines()) <= 10


class TestGlmOcr(AdapterConformance):
    rows = 3

    def make_model(self) -> Any:
        return tiny_model(CASE)

    def decoder(self, model: Any) -> nn.Module:
        return model.model.language_model

    def make_prompt(self, rows: Sequence[int]) -> VisualPrompt:
        return prompt(CASE, [CASE.rows[row] for row in rows], rows)
