# SPDX-License-Identifier: Apache-2.0
"""Dense auxiliary losses: what lies under each visual token, and where and when it is. Not part of the saved model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional as F

from tokenprune.bench.world.palette import COLOURS, DIRECTIONS, GRID, LETTERS, SHAPES, SLOTS

SIZES = {"colour": len(COLOURS) + 1, "shape": len(SHAPES) + 1, "flash": len(COLOURS) + 1, "letter": len(LETTERS) + 1}
EMPTY_WEIGHT = {"colour": 0.3, "shape": 0.3, "flash": 0.03, "letter": 0.03, "direction": 0.3}
PLACES = {"slot": SLOTS, "row": GRID, "column": GRID}
SHARPNESS = 8.0
"""Factor on the cosine between a visual token and a colour word."""


class DenseHeads(nn.Module):
    """Linear heads on the merged visual tokens, and on the same tokens part of the way up the decoder."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.seen = nn.Linear(width, sum(SIZES.values()))
        self.tapped = nn.Linear(width, len(DIRECTIONS) + 2 + sum(PLACES.values()))

    def of_tokens(
        self, visual: torch.Tensor, labels: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss on the visual tokens `(B, V, D)`, and accuracy over those that show something, for each label."""
        logits = self.seen(visual.float()).split(list(SIZES.values()), dim=-1)
        loss = visual.new_zeros((), dtype=torch.float32)
        right: dict[str, float] = {}
        for (name, _), part in zip(SIZES.items(), logits):
            target = labels[name].flatten(1)
            loss = loss + _weighted(part, target, EMPTY_WEIGHT[name])
            right[name] = _accuracy(part, target)
        return loss, right

    def of_words(
        self, visual: torch.Tensor, words: torch.Tensor, labels: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss of telling a token's colour by the likeness of its vector to the colour words' embeddings.

        It puts seen and read colours in one place, so that attention finds what a question names.

        Args:
            visual: visual tokens, `(B, V, D)`.
            words: embeddings of the colour words, `(C, D)`.
            labels: dense labels.
        """
        flash, thing = labels["flash"].flatten(1), labels["colour"].flatten(1)
        target = torch.where(flash > 0, flash, thing) - 1
        shown = target >= 0
        logits = SHARPNESS * F.normalize(visual.float()[shown], dim=-1) @ F.normalize(words.float(), dim=-1).T
        right = float((logits.argmax(-1) == target[shown]).float().mean())
        return F.cross_entropy(logits, target[shown]), {"word": right}

    def of_states(
        self, states: torch.Tensor, kept: torch.Tensor, labels: Mapping[str, torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Loss on decoder states `(B, K, D)` of the visual tokens `kept` `(B, K)`: motion, slot, row and column."""
        sizes = [len(DIRECTIONS) + 2, *PLACES.values()]
        states = F.rms_norm(states.float(), states.shape[-1:])
        direction, *places = self.tapped(states).split(sizes, dim=-1)
        target = labels["direction"].flatten(1).gather(1, kept)
        loss = _weighted(direction, target, EMPTY_WEIGHT["direction"])
        right = {"motion": _accuracy(direction, target)}
        grid = torch.meshgrid(*[torch.arange(n, device=states.device) for n in PLACES.values()], indexing="ij")
        for name, part, place in zip(PLACES, places, grid):
            target = place.flatten()[kept]
            loss = loss + 0.3 * F.cross_entropy(part.flatten(0, 1), target.flatten())
            right[name] = float((part.argmax(-1) == target).float().mean())
        return loss, right


def _weighted(logits: torch.Tensor, target: torch.Tensor, empty: float) -> torch.Tensor:
    weight = torch.ones(logits.shape[-1], device=logits.device)
    weight[0] = empty
    return F.cross_entropy(logits.flatten(0, 1), target.flatten(), weight=weight)


def _accuracy(logits: torch.Tensor, target: torch.Tensor) -> float:
    shown = target > 0
    return float((logits.argmax(-1)[shown] == target[shown]).float().mean()) if bool(shown.any()) else 1.0
