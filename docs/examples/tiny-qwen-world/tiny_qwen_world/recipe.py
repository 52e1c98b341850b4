# SPDX-License-Identifier: Apache-2.0
"""The recipe: every number that the shipped weights depend on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One stage of training; the learning rate warms up and falls along a cosine within it."""

    name: str
    steps: int
    clips: int
    """Clips in a batch."""
    questions: int
    """Questions about each clip; 0: only the vision tower learns, from what lies under each visual token."""
    rate: float
    last_rate: float
    dense_weight: float
    word_weight: float = 0.0
    """Weight of the likeness of seen colours to colour words."""
    look_weight: float = 0.0
    """Weight of where attention looks: from the colour word and from the end of a question at what is asked about."""
    visual_tokens: int = 288
    """Visual tokens of a clip that reach the decoder: all that show something small, and others drawn at random.

    To find one token among three hundred is hard to learn from nothing, to find it among forty is easy.
    """
    outside_every: int = 8
    """Every so manieth batch has questions from outside the world."""
    cut_share: float = 0.25


@dataclass(frozen=True)
class Recipe:
    """Stages in order, and what they share."""

    stages: tuple[Stage, ...]
    seed: int = 0
    warm_up: int = 100
    decay: float = 0.05
    clip_norm: float = 1.0
    fresh: int = 32
    """Batches of new clips that are made at a time."""
    reuse: int = 4
    """Times each clip is used, with other questions each time."""
    mp4_share: float = 0.25
    """Share of clips that have been through an .mp4 file."""
    row: int = 18
    """Tokens of a question row, answer included."""
    outside_row: int = 40
    """The same in a batch with questions from outside the world."""


RECIPE = Recipe(
    stages=(
        Stage("see", 300, 24, 0, 2e-3, 2e-4, 1.0),
        Stage("few", 400, 16, 12, 1.5e-3, 1.35e-3, 0.1, visual_tokens=40, cut_share=0.4),
        Stage("named", 500, 16, 12, 1.4e-3, 1.2e-3, 0.1, word_weight=0.5, visual_tokens=40, cut_share=0.4),
        Stage("more", 600, 16, 12, 1.2e-3, 1e-3, 0.1, word_weight=0.2, visual_tokens=112, cut_share=0.4),
        Stage("look", 300, 16, 12, 1.2e-3, 1e-3, 0.1, 0.2, 0.2, visual_tokens=112, cut_share=0.4),
        Stage("all", 950, 16, 12, 1.2e-3, 3e-5, 0.1, 0.1, 0.1, cut_share=0.4),
    )
)
