# SPDX-License-Identifier: Apache-2.0
"""Multiple-choice questions: how they are put to the model, and which option an answer names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tokenprune.errors import InvalidValueError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_BEFORE = r"(?:the|my|correct|right|best|final|answer|option|choice|letter|is|would|be)"
_LETTER = re.compile(rf"^\W*((?:{_BEFORE}\b\W*)*)([A-Z])(?![\w'\u2019])", re.IGNORECASE)
# "A man walks" and EgoSchema's "C picks up a cup" begin with a word, not with the name of an option.
_SENTENCE = re.compile(r"\s+(?!(?:is|would be)\s+(?:the\s+)?(?:correct|right|best)\b)(?!and\b|or\b)[a-z]")
_ANOTHER = re.compile(r"\s*(?:,|/|&|and\b|or\b)\s*(?:option\s+)?\W?[A-Z](?!\w)")


def ask_for_letter(question: str, options: Sequence[str]) -> str:
    """The question with its options as lettered lines, and the request to answer with a letter.

    >>> print(ask_for_letter("Which colour?", ["red", "blue"]))
    Which colour?
    A. red
    B. blue
    Answer with the letter of the right option only.

    Raises:
        InvalidValueError: no text, or fewer than two or more than 26 options.
    """
    texts = [question, *([options] if isinstance(options, str) else options)]
    if isinstance(options, str) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise InvalidValueError("a multiple-choice question needs a text and a list of options, none of them empty")
    if not 2 <= len(options) <= len(LETTERS):
        raise InvalidValueError(f"options must be 2 to {len(LETTERS)} texts, got {len(options)}")
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options)]
    return "\n".join([question, *lines, "Answer with the letter of the right option only."])


def named_option(answer: str, options: Sequence[str]) -> int:
    """Index of the option that an answer names, by its letter or by its text; -1 if it names none, or several.

    >>> named_option("The answer is (B).", ["red", "blue"])
    1
    """
    text = answer.strip()
    exact = [place for place, option in enumerate(options) if _plain(option) == _plain(text)]
    if len(exact) == 1:
        return exact[0]
    found = _LETTER.match(text)
    if found is not None:
        rest = text[found.end() :]
        if _ANOTHER.match(rest):
            return -1
        if found.group(1) or not _SENTENCE.match(rest):
            place = LETTERS.index(found.group(2).upper())
            return place if place < len(options) else -1
    return _quoted_option(text, options)


def _quoted_option(text: str, options: Sequence[str]) -> int:
    """The one option whose text stands in the answer; of texts within one another the longest counts."""
    said = f" {_plain(text)} "
    named = [place for place, option in enumerate(options) if f" {_plain(option)} " in said]
    longest = [
        place
        for place in named
        if not any(_plain(options[place]) in _plain(options[other]) for other in named if other != place)
    ]
    return longest[0] if len(longest) == 1 else -1


def _plain(text: str) -> str:
    """Words only, so that neither case nor punctuation counts."""
    return " ".join(re.findall(r"\w+", text.casefold()))
