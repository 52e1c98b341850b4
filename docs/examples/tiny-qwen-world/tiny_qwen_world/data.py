# SPDX-License-Identifier: Apache-2.0
"""Batches, as a function of stage and step alone: a run that is resumed sees what it would have seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch

from tiny_qwen_world.evidence import Evidence, evidence
from tiny_qwen_world.labels import DenseLabels, dense_labels
from tiny_qwen_world.outside import NOTE, outside_question
from tiny_qwen_world.recipe import Recipe, Stage
from tokenprune.bench.world.questions import KINDS, ask
from tokenprune.bench.world.render import Frames, render
from tokenprune.bench.world.scene import Scene, sample_scene
from tokenprune.bench.world.video import through_mp4

OUTSIDE = "outside"


@dataclass(frozen=True, eq=False)
class Sample:
    """A clip to train on."""

    scene: Scene
    frames: Frames
    labels: DenseLabels


@dataclass(frozen=True)
class Batch:
    """Clips of one step, stacked."""

    frames: torch.Tensor
    labels: Mapping[str, torch.Tensor]
    kept: torch.Tensor
    """Visual tokens that the decoder gets, `(B, K)`, in order."""
    turns: Sequence[Sequence[tuple[str, str, str]]]
    """`(kind, question, answer)`."""
    evidence: torch.Tensor
    """Which of all visual tokens show the answer to each question, bool `(B, N, V)`."""


def make_sample(seed: int, cut_share: float, mp4_share: float) -> Sample:
    """The clip of a seed, some of them as they come back from an .mp4 file."""
    scene = sample_scene(seed, cut_share)
    frames = render(scene)
    rng = np.random.default_rng([23, seed])
    if rng.random() < mp4_share:
        frames = through_mp4(frames, int(rng.integers(16, 27)))
    return Sample(scene, frames, dense_labels(scene))


class Batches:
    """Makes clips a block at a time and hands them out, each `reuse` times."""

    def __init__(self, recipe: Recipe, stage: Stage, offset: int) -> None:
        self.recipe, self.stage, self.offset = recipe, stage, offset
        self._block = -1
        self._samples: list[Sample] = []
        self._order = np.zeros(0, dtype=np.int64)

    def at(self, step: int, weights: Mapping[str, float]) -> Batch:
        """The batch of a step of the stage; `weights` says how much each kind should be asked."""
        recipe, stage = self.recipe, self.stage
        size = recipe.fresh * stage.clips
        block, within = divmod(step, recipe.fresh * recipe.reuse)
        if block != self._block:
            self._fill(block, size)
        chosen = self._order[within * stage.clips : (within + 1) * stage.clips]
        picked = [self._samples[int(i)] for i in chosen]
        rng = np.random.default_rng([19, recipe.seed, self.offset, step])
        outside = stage.outside_every > 0 and step % stage.outside_every == 0
        asked = [turns_of(s, rng, stage.questions, weights, 0.35 if outside else 0.0) for s in picked]
        turns = [[turn[:3] for turn in turns] for turns in asked]
        proof = torch.zeros(len(picked), stage.questions, picked[0].labels.colour.size, dtype=torch.bool)
        for i, row in enumerate(asked):
            for j, turn in enumerate(row):
                proof[i, j] = torch.from_numpy(turn[3].ravel())
        labels = {
            field.name: torch.from_numpy(np.stack([getattr(s.labels, field.name) for s in picked]))
            for field in fields(DenseLabels)
        }
        kept = torch.from_numpy(np.stack([keep_some(s.labels, stage.visual_tokens, rng) for s in picked]))
        return Batch(torch.from_numpy(np.stack([s.frames for s in picked])), labels, kept, turns, proof)

    def _fill(self, block: int, size: int) -> None:
        first = self.offset * 1_000_000 + block * size
        share = self.stage.cut_share
        with ThreadPoolExecutor(2) as pool:
            made = pool.map(lambda seed: make_sample(seed, share, self.recipe.mp4_share), range(first, first + size))
            self._samples = list(made)
        rng = np.random.default_rng([29, self.recipe.seed, self.offset, block])
        self._order = np.concatenate([rng.permutation(size) for _ in range(self.recipe.reuse)])
        self._block = block


def keep_some(labels: DenseLabels, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """`count` visual tokens, sorted: every flash and sign, then others at random, objects sooner than background."""
    small = (labels.flash > 0) | (labels.letter > 0)
    urge = np.where(small, np.inf, np.where(labels.colour > 0, 6.0, 1.0)).ravel()
    order = np.argsort(rng.exponential(size=urge.shape) / urge, kind="stable")
    return np.sort(order[:count])


def turns_of(
    sample: Sample, rng: np.random.Generator, count: int, weights: Mapping[str, float], outside_share: float
) -> list[tuple[str, str, str, Evidence]]:
    """`count` questions about a clip with what proves the answers; kinds drawn by weight, some not of the world."""
    turns: list[tuple[str, str, str, Evidence]] = []
    share = np.array([weights[kind] for kind in KINDS])
    share = share / share.sum()
    while len(turns) < count:
        if rng.random() < outside_share:
            nothing = np.zeros(sample.labels.colour.shape, dtype=np.bool_)
            turns.append((OUTSIDE, outside_question(rng), NOTE, nothing))
            continue
        question = ask(sample.scene, KINDS[int(rng.choice(len(KINDS), p=share))], rng)
        if question is not None:
            proof = evidence(sample.scene, sample.labels, question)
            turns.append((question.kind, question.text, question.answer, proof))
    return turns
