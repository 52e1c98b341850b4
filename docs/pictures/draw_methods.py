# SPDX-License-Identifier: Apache-2.0
"""Draws the pictures of the page of methods: what each keeps of the demo clip at a tenth of its tokens, and by what.

``python docs/pictures/draw_methods.py [--out FOLDER] [NAME ...]``; without names all that are installed.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from torch import Tensor

import tokenprune as tp
from tokenprune.answers import ClipQuestion
from tokenprune.show.cells import CellMap
from tokenprune.show.scene import Scene
from tokenprune.show.strip import draw_strip
from tokenprune_qwen25vl.assets import demo_clip
from tokenprune_qwen25vl.runner import QwenRunner

QUESTION = "Which way does the red circle move?"
KEEP_RATIO = 0.1


def main() -> None:
    """Draw what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "methods")
    given = parser.parse_args()
    rows = [row for row in tp.methods() if not row.variant and (not given.names or row.name in given.names)]
    given.out.mkdir(parents=True, exist_ok=True)
    model = QwenRunner().load(None, "cpu", "float32", None)
    question = model.prepare(ClipQuestion(str(demo_clip()), QUESTION))
    pictures = model.pictures(question)
    for row in rows:
        span = history(model, question, operator_of(row))
        scene = Scene(pictures, question.sampled_fps, CellMap.of(span), QUESTION, "", {})
        draw_strip(scene, given.out / f"{row.name}.webp")


def operator_of(row: tp.Method) -> Any:
    """The method at a tenth of the tokens, or as it is where its content decides."""
    return row.cls(keep_ratio=KEEP_RATIO) if row.has_budget else row.cls()


def history(model: Any, question: Any, operator: Any) -> Any:
    """What the method did to the clip's tokens."""
    with tp.attach(model.module, operator, signals={"relevance": lengths}) as session:
        model.answer(question, None, 1)
        return session.report.spans[0][0]


def lengths(tokens: tp.VisualTokens) -> Tensor:
    """The relevance that a caller would give: here the length of a token."""
    return tokens.features.float().norm(dim=1)


if __name__ == "__main__":
    main()
