# SPDX-License-Identifier: Apache-2.0
"""The page of methods: each has a paragraph, a picture and a line of use; the pictures are small, and can be drawn."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

import tokenprune as tp

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "methods.md").read_text("utf-8")
SECTIONS = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))
AFTER_THE_PREFILL = [row.name for row in tp.methods() if row.site == "after_prefill"]


def test_every_press_has_its_section() -> None:
    assert sorted(set(AFTER_THE_PREFILL) - set(SECTIONS)) == []


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_says_shows_and_uses_its_method(name: str) -> None:
    text = SECTIONS[name]
    assert f"](pictures/methods/{name}.webp)" in text
    assert (DOCS / f"pictures/methods/{name}.webp").exists()
    assert f"tp.{name}(" in text
    assert name in {row.name for row in tp.methods()}


def test_every_published_method_has_its_picture() -> None:
    ours = [row for row in tp.methods() if row.cls.__module__.startswith("tokenprune.operators.")]
    published = [row.name for row in ours if not row.variant and row.paper != "a baseline"]
    assert [name for name in published if f"](pictures/methods/{name}.webp)" not in PAGE] == []
    shown = re.findall(r"\]\((pictures/methods/\w+\.webp)\)", PAGE)
    assert [picture for picture in shown if not (DOCS / picture).exists()] == []


def test_the_pictures_are_small() -> None:
    sizes = {path.stem: path.stat().st_size for path in (DOCS / "pictures/methods").iterdir()}
    assert sum(sizes.values()) < 300_000
    assert set(sizes) <= {row.name for row in tp.methods()}


def test_the_command_draws_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("av")
    image = pytest.importorskip("PIL.Image")
    spec = importlib.util.spec_from_file_location("draw_methods", DOCS / "pictures/draw_methods.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", ["draw_methods.py", "--out", str(tmp_path), "KNorm", "UniformSelect"])
    module.main()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["KNorm.webp", "UniformSelect.webp"]
    scored, bare = (image.open(tmp_path / f"{name}.webp") for name in ("KNorm", "UniformSelect"))
    assert (scored.width, bare.width) == (540, 540)
    assert scored.height == 2 * bare.height + 4
