# SPDX-License-Identifier: Apache-2.0
"""Questions from outside the world, and the note that answers them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tiny_qwen_world.everyday import NOUNS, PATTERNS, PLACES, PLAIN, SYLLABLES, VERBS

NOTE = "I only know my small world of coloured shapes."


def outside_question(rng: np.random.Generator) -> str:
    """An everyday question that the world cannot answer; some words are made up, so that any word may come."""
    text = ""
    while not 0 < len(text) <= 60:
        text = _choose(rng, PLAIN) if rng.random() < 0.2 else _fill(rng, _choose(rng, PATTERNS))
    chance = rng.random()
    if chance < 0.08:
        return text.lower()
    return text.rstrip("?.!") if chance < 0.14 else text


def _fill(rng: np.random.Generator, pattern: str) -> str:
    return pattern.format(n=_noun(rng), m=_noun(rng), v=_choose(rng, VERBS), p=_choose(rng, PLACES))


def _choose(rng: np.random.Generator, words: Sequence[str]) -> str:
    return words[int(rng.integers(len(words)))]


def _noun(rng: np.random.Generator) -> str:
    if rng.random() < 0.7:
        return _choose(rng, NOUNS)
    return "".join(_choose(rng, SYLLABLES) for _ in range(int(rng.integers(1, 4))))
