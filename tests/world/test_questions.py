# SPDX-License-Identifier: Apache-2.0
"""Questions: answers are balanced, so that nobody does well without the video."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
from tiny_qwen_world.measure import guess_from_text, held_out, overall
from tiny_qwen_world.outside import NOTE, outside_question

from tokenprune.bench.world import KINDS, Question, questions_of, sample_scene


def _many() -> list[Question]:
    return [q for seed in range(4000) for q in questions_of(sample_scene(seed))]


def test_every_answer_is_an_option_and_all_are_as_frequent() -> None:
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    options: dict[str, tuple[str, ...]] = {}
    for question in _many():
        assert question.answer in question.options
        answers[question.kind][question.answer] += 1
        options[question.kind] = question.options
    assert set(answers) == set(KINDS)
    for kind, counts in answers.items():
        assert set(counts) == set(options[kind])
        even = sum(counts.values()) / len(options[kind])
        spread = 4 / np.sqrt(even)
        for answer, count in counts.items():
            assert abs(count / even - 1) < spread + 0.03, (kind, answer)


def test_the_best_guess_from_the_wording_is_near_chance() -> None:
    scores = guess_from_text(held_out(150), learn_from=5000)
    chance = {q.kind: 1 / len(q.options) for q in _many()[:200]}
    for kind, score in scores.items():
        assert score.share < chance[kind] + 4 * np.sqrt(chance[kind] * (1 - chance[kind]) / score.asked), kind
    assert overall(scores) < np.mean(list(chance.values())) + 0.05


def test_held_out_clips_ask_each_kind_alike() -> None:
    clips = held_out(7)
    counts = Counter(q.kind for clip in clips for q in clip.questions)
    assert counts == dict.fromkeys(KINDS, 7)
    assert min(clip.seed for clip in clips) >= 1_000_000_000


def test_outside_questions_differ_and_are_not_of_the_world() -> None:
    rng = np.random.default_rng(0)
    asked = [outside_question(rng) for _ in range(500)]
    inside = {q.text for q in _many()}
    assert len(set(asked)) > 400
    assert not set(asked) & inside
    assert NOTE
