# SPDX-License-Identifier: Apache-2.0
"""EgoSchema's own files (arXiv 2308.09126): questions, answers of the public subset, videos, submissions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenprune.errors import InvalidValueError
from tokenprune.files import write_text
from tokenprune.messages import shown
from tokenprune.strict_json import read_json

OPTIONS = 5
SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi")


@dataclass(frozen=True)
class EgoQuestion:
    """A question about the video that is named like it, and its five options."""

    uid: str
    question: str
    options: tuple[str, ...]


def read_questions(path: Path) -> list[EgoQuestion]:
    """``questions.json``: a list of ``{"q_uid", "question", "option 0" ... "option 4"}``.

    Raises:
        InvalidValueError: the file cannot be read or is something else; the message names the entry.
    """
    entries = _json(path)
    if not isinstance(entries, list) or not entries:
        raise InvalidValueError(f"{path} must be a list of questions, of at least one")
    questions = [_question(path, place, entry) for place, entry in enumerate(entries)]
    uids = [question.uid for question in questions]
    if len(set(uids)) < len(uids):
        twice = next(uid for uid in uids if uids.count(uid) > 1)
        raise InvalidValueError(f"{path} has two questions with the q_uid {twice}")
    return questions


def read_answers(path: Path) -> dict[str, int]:
    """``subset_answers.json``: q_uid -> index of the right option.

    Raises:
        InvalidValueError: the file cannot be read or is something else.
    """
    answers = _json(path)
    if not isinstance(answers, dict):
        raise InvalidValueError(f"{path} must be an object of q_uid: index")
    known: dict[str, Any] = answers
    for uid, index in known.items():
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < OPTIONS:
            raise InvalidValueError(f"{path}: the answer of {uid} must be 0 to {OPTIONS - 1}, got {shown(index)}")
    return known


def find_video(directory: Path, uid: str) -> Path:
    """The question's video; where there is none, the path it should have."""
    places = [directory / f"{uid}{suffix}" for suffix in SUFFIXES]
    return next((place for place in places if place.is_file()), places[0])


def write_submission(path: Path, questions: Sequence[EgoQuestion], predictions: Mapping[str, int]) -> None:
    """Write q_uid -> index for every question, -1 where there is no prediction."""
    submission = {question.uid: predictions.get(question.uid, -1) for question in questions}
    write_text(path, json.dumps(submission, indent=1) + "\n")


def _json(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise InvalidValueError(f"cannot read {path}: {error}") from error


def _question(path: Path, place: int, entry: Any) -> EgoQuestion:
    names = ("q_uid", "question", *(f"option {index}" for index in range(OPTIONS)))
    if not isinstance(entry, dict):
        raise InvalidValueError(f"{path}: entry {place} is no question")
    fields: dict[str, Any] = entry
    for name in names:
        if not isinstance(fields.get(name), str) or not fields[name].strip():
            raise InvalidValueError(
                f"{path}: entry {place} must have a text {shown(name)}, got {shown(fields.get(name))}"
            )
    if Path(fields["q_uid"]).name != fields["q_uid"]:
        raise InvalidValueError(f"{path}: entry {place} has a q_uid that cannot name a video: {shown(fields['q_uid'])}")
    uid, question, *options = (str(fields[name]) for name in names)
    return EgoQuestion(uid, question, tuple(options))
