# SPDX-License-Identifier: Apache-2.0
"""The words in which the world's questions are asked, and which words of a text are none of them."""

from __future__ import annotations

import re

from tokenprune.bench.world.palette import COLOURS, SHAPES, SIDES

_WRITTEN = (
    "a after are before big color colour cut direction do does first flash flashes going have how in is last letter "
    "many move moves moving object on see shape show side sign small that the there way what where which you"
)
WORDS = frozenset(_WRITTEN.split()).union(COLOURS, SHAPES, SIDES)
"""Every word of every question of `tokenprune.bench.world.questions`, in small letters."""

_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")


def unknown_words(text: str) -> tuple[str, ...]:
    """Words of a text that no question of the world has, as they are written, each once.

    >>> unknown_words("Which way does the red dog move?")
    ('dog',)
    """
    return tuple(dict.fromkeys(word for word in _WORD.findall(text) if word.lower() not in WORDS))
