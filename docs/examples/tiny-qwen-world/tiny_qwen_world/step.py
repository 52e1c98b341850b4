# SPDX-License-Identifier: Apache-2.0
"""The loss of one batch, and what can be read from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from tiny_qwen_world.data import OUTSIDE, Batch
from tiny_qwen_world.evidence import named_colour
from tiny_qwen_world.forward import Seen, additive, to_patches
from tiny_qwen_world.packing import IGNORE, Packed, pack, row_mask
from tiny_qwen_world.recipe import Stage
from tokenprune.bench.world.palette import COLOURS

if TYPE_CHECKING:
    from tiny_qwen_world.loop import Trainer

KEEP = 0.98
"""How much of a running accuracy stays at each step."""


@dataclass
class Step:
    """Loss and figures of a batch in one stage; `see` and `answer` are the two halves of the training forward."""

    trainer: Trainer
    stage: Stage
    see: Callable[[torch.Tensor], torch.Tensor]
    answer: Callable[..., Seen]

    def __post_init__(self) -> None:
        vocabulary = self.trainer.tokenizer.get_vocab()
        self.colours = torch.tensor([vocabulary["\u0120" + colour] for colour in COLOURS])

    def __call__(self, batch: Batch, running: dict[str, float]) -> tuple[torch.Tensor, dict[str, float]]:
        trainer, stage = self.trainer, self.stage
        device = trainer.device
        labels = {name: value.to(device) for name, value in batch.labels.items()}
        figures: dict[str, float] = {}
        with torch.autocast(device.type, torch.bfloat16):
            visual = self.see(to_patches(batch.frames.to(device)))
        dense, right = trainer.heads.of_tokens(visual, labels)
        figures.update(right, dense=dense.item())
        loss = stage.dense_weight * dense
        if stage.questions == 0:
            return loss, figures
        outside = any(kind == OUTSIDE for turns in batch.turns for kind, _, _ in turns)
        length = trainer.recipe.outside_row if outside else trainer.recipe.row
        packed = pack(trainer.tokenizer, [[(q, a) for _, q, a in turns] for turns in batch.turns], length)
        kept = batch.kept.to(device)
        shared = len(trainer.forward.layout.before) + kept.shape[1]
        mask = additive(row_mask(stage.questions, length, shared)).to(device)
        picked = visual.gather(1, kept[..., None].expand(-1, -1, visual.shape[-1]))
        ids, colour_at, told_at = (part.to(device) for part in (packed.ids, packed.named, packed.first))
        with torch.autocast(device.type, torch.bfloat16):
            out = self.answer(picked, kept, ids, mask, colour_at, told_at)
        where, right = trainer.heads.of_states(out.shared, kept, labels)
        figures.update(right)
        embeddings = trainer.model.model.language_model.embed_tokens.weight
        named, right = trainer.heads.of_words(visual, embeddings[self.colours.to(device)], labels)
        figures.update(right)
        looked = self._look(out, batch, kept, labels, figures) if stage.look_weight else 0.0
        told = self._tell(out.rows, packed, batch, running)
        figures["answer"] = told.item()
        aside = stage.dense_weight * where + stage.word_weight * named + stage.look_weight * looked
        return loss + aside + told, figures

    def _look(
        self,
        out: Seen,
        batch: Batch,
        kept: torch.Tensor,
        labels: Mapping[str, torch.Tensor],
        figures: dict[str, float],
    ) -> torch.Tensor:
        """Loss of where the colour word and the end of each question look; adds its figures."""
        proof = batch.evidence.to(kept.device).gather(2, kept[:, None].expand(-1, self.stage.questions, -1))
        seen = torch.where(labels["flash"] > 0, labels["flash"], labels["colour"]).flatten(1).gather(1, kept)
        colour = batch_colours(batch).to(kept.device)[..., None]
        named, figures["look_named"] = missed(out.named, (seen[:, None] == colour) & (colour > 0))
        told, figures["look_told"] = missed(out.told, proof)
        return named + told

    def _tell(self, rows: torch.Tensor, packed: Packed, batch: Batch, running: dict[str, float]) -> torch.Tensor:
        device = rows.device
        targets, weights = packed.targets.to(device), packed.weights.to(device)
        told = targets != IGNORE
        logits = F.linear(rows[told].float(), self.trainer.model.model.language_model.embed_tokens.weight)
        losses = F.cross_entropy(logits, targets[told], reduction="none")
        guess = torch.full(targets.shape, IGNORE, device=device)
        guess[told] = logits.argmax(-1)
        first = packed.first.to(device)[..., None]
        hits = (guess.gather(2, first) == targets.gather(2, first))[..., 0].tolist()
        counts: dict[str, list[bool]] = {}
        for turns, marks in zip(batch.turns, hits):
            for (kind, _, _), mark in zip(turns, marks):
                counts.setdefault(kind, []).append(mark)
        for kind, marks in counts.items():
            keep = KEEP ** min(1.0, len(marks) / 16)
            mean = sum(marks) / len(marks)
            running[kind] = running.get(kind, mean) * keep + mean * (1 - keep)
        return (losses * weights[told]).sum() / (targets.shape[0] * targets.shape[1])


def batch_colours(batch: Batch) -> torch.Tensor:
    """The colour that each question names, counted from 1, or 0; `(B, N)`."""
    named = [[named_colour(question) for _, question, _ in turns] for turns in batch.turns]
    return torch.tensor([[0 if colour is None else colour + 1 for colour in row] for row in named])


def missed(chances: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, float]:
    """How far attention is from looking at what it should, over the questions that have something to look at.

    Args:
        chances: log-probabilities `(B, heads, N, K)`.
        wanted: bool `(B, N, K)`.

    Returns:
        Mean negative log of the attention that is on wanted tokens, and its mean share.
    """
    shown = wanted.any(-1)[:, None].expand(chances.shape[:3])
    right = chances.masked_fill(~wanted[:, None], float("-inf"))[shown].logsumexp(-1)
    return -right.mean(), right.exp().mean().item()
