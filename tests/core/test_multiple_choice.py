# SPDX-License-Identifier: Apache-2.0
"""Which option an answer names; what names none, or several, is -1 and never a guess."""

from __future__ import annotations

import pytest

from tokenprune.bench.multiple_choice import ask_for_letter, named_option
from tokenprune.errors import InvalidValueError

OPTIONS = ["C folds a towel", "C washes a red cup", "a man", "a man walks", "The sky."]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("A", 0),
        ("b", 1),
        (" (C) ", 2),
        ("D.", 3),
        ("E: The sky.", 4),
        ("B. C washes a red cup", 1),
        ("B) because C folds a towel later", 1),
        ("**B**", 1),
        ("Answer: D", 3),
        ("The answer is (B).", 1),
        ("The correct option is C", 2),
        ("My final answer is option E, as the sky is seen", 4),
        ("Option C is right", 2),
        ("D is the correct answer", 3),
        # words, not letters
        ("C washes a red cup", 1),
        ("C washes a red cup.", 1),
        ("c folds a towel", 0),
        ("A man", 2),
        ("A man walks", 3),
        ("I think that a man walks", 3),
        ("the sky", 4),
        ("It is clear that C folds a towel, then rests.", 0),
        # none, or several
        ("", -1),
        ("   ", -1),
        ("Z", -1),
        ("F. none of them", -1),
        ("I'd rather not say", -1),
        ("C is walking around", -1),
        ("A dog runs", -1),
        ("A and B", -1),
        ("A, B", -1),
        ("A or (C)", -1),
        ("C folds a towel and C washes a red cup", -1),
        ("womanly", -1),
        ("1", -1),
    ],
)
def test_the_option_an_answer_names(answer: str, expected: int) -> None:
    assert named_option(answer, OPTIONS) == expected


def test_equal_options_are_told_apart_by_letter_only() -> None:
    assert named_option("yes", ["yes", "yes"]) == -1
    assert named_option("B", ["yes", "yes"]) == 1


def test_how_it_is_asked() -> None:
    asked = ask_for_letter("What?", ["x", "y", "z"]).splitlines()
    assert asked[:4] == ["What?", "A. x", "B. y", "C. z"]
    assert "letter" in asked[4]


@pytest.mark.parametrize("options", [[], ["x"], ["x"] * 27, "xy", ["x", ""], ["x", None]])
def test_bad_options(options: list[str]) -> None:
    with pytest.raises(InvalidValueError, match="options"):
        ask_for_letter("What?", options)
    with pytest.raises(InvalidValueError):
        ask_for_letter(" ", ["x", "y"])
