# SPDX-License-Identifier: Apache-2.0
"""Evidence: the visual tokens that show the answer."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from tiny_qwen_world.evidence import evidence, named_colour
from tiny_qwen_world.labels import dense_labels

from tokenprune.bench.world import KINDS, SMALL_KINDS, questions_of, sample_scene
from tokenprune.bench.world.palette import COLOURS, DIRECTIONS, LETTERS, SHAPES, SIDES, side_cells


def test_the_answer_can_be_read_from_the_evidence() -> None:
    for seed in range(150):
        scene = sample_scene(seed)
        labels = dense_labels(scene)
        for question in questions_of(scene):
            proof = evidence(scene, labels, question)
            if question.kind == "exists":
                assert proof.any() == (question.answer == "yes")
                continue
            assert proof.any()
            if question.kind == "count":
                assert proof.sum() == int(question.answer)
            elif question.kind == "where":
                (_, row, column) = np.argwhere(proof)[0]
                assert (row, column) in side_cells(SIDES.index(question.answer))
            elif question.kind in ("colour", "first"):
                assert set(labels.flash[proof]) == {COLOURS.index(question.answer) + 1}
            elif question.kind == "detail":
                assert labels.letter[proof].tolist() == [LETTERS.index(question.answer) + 1]
            elif question.kind == "shape":
                assert set(labels.shape[proof]) == {SHAPES.index(question.answer) + 1}
            elif question.kind == "direction":
                assert set(labels.direction[proof]) == {DIRECTIONS.index(question.answer) + 2}
            else:
                assert set(labels.colour[proof]) == {COLOURS.index(question.answer) + 1}


def test_small_kinds_rest_on_few_visual_tokens() -> None:
    """For at least half of the kinds one to three tokens of 288 decide, in one or two time slots."""
    sizes: dict[str, list[int]] = defaultdict(list)
    slots: dict[str, list[int]] = defaultdict(list)
    for seed in range(300):
        scene = sample_scene(seed)
        labels = dense_labels(scene)
        for question in questions_of(scene):
            proof = evidence(scene, labels, question)
            sizes[question.kind].append(int(proof.sum()))
            slots[question.kind].append(int(proof.any(axis=(1, 2)).sum()))
    for kind in SMALL_KINDS:
        if kind != "count":
            assert max(sizes[kind]) == 1
            assert max(slots[kind]) == 1
    assert max(sizes["count"]) == 4
    assert np.mean([size <= 3 for size in sizes["count"]]) > 0.7
    assert len(SMALL_KINDS) - 1 >= len(KINDS) / 2


def test_named_colour() -> None:
    assert named_colour("Where is the green flash?") == COLOURS.index("green")
    assert named_colour("How many flashes are there?") is None
