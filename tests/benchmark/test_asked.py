# SPDX-License-Identifier: Apache-2.0
"""Which questions are asked, and how answers are compared."""

from __future__ import annotations

from collections import Counter

import pytest

from tokenprune.bench.world.clip import HELD_OUT
from tokenprune.bench.world.questions import KINDS
from tokenprune.bench.world_benchmark.asked import STRICT, WORD, WRONG, ask_world, judged, normalised


@pytest.mark.parametrize("count", [1, 7, 10, 53])
def test_so_many_questions_as_evenly_as_can_be(count: int) -> None:
    kinds = Counter(question.kind for clip in ask_world(count) for question in clip.questions)
    assert kinds.total() == count
    assert max(kinds.values()) - min(kinds.get(kind, 0) for kind in KINDS) <= 1


def test_held_out_clips_in_order_and_no_clip_in_two_sets() -> None:
    first, second = ([clip.scene.seed for clip in ask_world(60, seed)] for seed in (0, 1))
    assert first == sorted(set(first))
    assert min(first) >= HELD_OUT
    assert not set(first) & set(second)
    assert ask_world(60) == ask_world(60)


@pytest.mark.parametrize("text", ["Red", " red ", "red.", "RED!", '"red"', "red\n"])
def test_what_does_not_count(text: str) -> None:
    assert normalised(text) == "red"


def test_what_counts() -> None:
    assert normalised("dark  red") == "dark red"
    assert normalised("red") != normalised("red red")


@pytest.mark.parametrize(
    ("begun", "right", "outcome"),
    [
        (["red"], "red", STRICT),
        ([" Red", " Red."], "red", STRICT),
        (["red", "redred"], "red", WORD),
        (["T", "T world", "T worldyellow"], "T", WORD),
        (["tri", "triangle"], "triangle", STRICT),
        (["tri", "triangle", "triangle and"], "triangle", WORD),
        (["The", "The letter", "The letter T"], "T", WRONG),
        (["blue"], "red", WRONG),
        (["blue", "blue red"], "red", WRONG),
        ([""], "red", WRONG),
    ],
)
def test_a_word_is_told_from_an_answer_that_ends(begun: list[str], right: str, outcome: str) -> None:
    assert judged(begun, right) == outcome
