# SPDX-License-Identifier: Apache-2.0
"""Which words the world's questions have, and which words of a text are none of them."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tokenprune.bench.world.questions import KINDS, ask
from tokenprune.bench.world.scene import sample_scene
from tokenprune.bench.world.words import WORDS, unknown_words


def test_the_words_are_those_of_the_questions() -> None:
    rng = np.random.default_rng(0)
    questions = [ask(sample_scene(seed), kind, rng) for seed in range(400) for kind in KINDS]
    asked = " ".join(question.text for question in questions if question is not None)
    assert unknown_words(asked) == ()
    assert set(re.findall(r"\w+", asked.lower())) == WORDS


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("Which way does the red circle move?", ()),
        ("WHICH WAY DOES THE RED CIRCLE MOVE", ()),
        ("Where is the dog? The dog!", ("dog",)),
        ("Where's the Dog in 2024?", ("Where's", "Dog", "2024")),
        ("где собака", ("где", "собака")),
        ("?! ...", ()),
    ],
)
def test_unknown_words(text: str, unknown: tuple[str, ...]) -> None:
    assert unknown_words(text) == unknown
