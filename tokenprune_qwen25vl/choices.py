# SPDX-License-Identifier: Apache-2.0
"""Multiple-choice questions: how they are put to the model, and which option an answer names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tokenprune.errors import InvalidValueError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LETTER = re.compile(r"^\W*(?:the\s+)?(?:correct\s+)?(?:answer|option|choice)?(?:\s+is)?\W*([A-Z])(?:\W|$)", re.IGNORECASE)


def ask_for_letter(question: str, options: Sequence[str]) -> str:
    """The question with its options as lettered lines, and the request to answer with a letter.

    Raises:
        InvalidValueError: fewer than two or more than 26 options.
    """
    if not 2 <= len(options) <= len(LETTERS):
        raise InvalidValueError(f"options must be 2 to {len(LETTERS)} texts, got {len(options)}")
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options)]
    return "\n".join([question, *lines, "Answer with the letter of the right option only."])


def named_option(answer: str, options: Sequence[str]) -> int:
    """Index of the option that an answer names, by its letter or by its text; -1 if it names none, or several."""
    text = answer.strip()
    exact = [place for place, option in enumerate(options) if option.strip().lower() == text.lower().rstrip(".")]
    if len(exact) == 1:
        return exact[0]
    found = _LETTER.match(text)
    if found is not None and (len(text) == 1 or not _starts_a_sentence(text, found)):
        place = LETTERS.index(found.group(1).upper())
        return place if place < len(options) else -1
    named = [place for place, option in enumerate(options) if option.strip().lower() in text.lower()]
    return named[0] if len(named) == 1 else -1


def _starts_a_sentence(text: str, found: re.Match[str]) -> bool:
    """Whether the letter is the word "a" or "I" of running text, as in "A man walks"."""
    rest = text[found.end(1) :]
    return bool(re.match(r"\s+[a-z]", rest)) and text[: found.start(1)].strip("( ") == ""
