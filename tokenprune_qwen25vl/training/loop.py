# SPDX-License-Identifier: Apache-2.0
"""The training loop."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from tokenprune_qwen25vl.training import store
from tokenprune_qwen25vl.training.data import OUTSIDE, Batch, Batches
from tokenprune_qwen25vl.training.forward import Seen, TrainingForward, additive, to_patches
from tokenprune_qwen25vl.training.heads import DenseHeads
from tokenprune_qwen25vl.training.packing import IGNORE, Packed, pack, row_mask
from tokenprune_qwen25vl.training.recipe import Recipe, Stage
from tokenprune_qwen25vl.world.evidence import named_colour
from tokenprune_qwen25vl.world.palette import COLOURS
from tokenprune_qwen25vl.world.questions import KINDS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration

KEEP = 0.98
"""How much of a running accuracy stays at each step."""


@dataclass
class Trainer:
    """A model in training, and what it trains with."""

    model: Qwen2_5_VLForConditionalGeneration
    heads: DenseHeads
    forward: TrainingForward
    tokenizer: PreTrainedTokenizerBase
    recipe: Recipe
    folder: Path
    device: torch.device
    compiled: bool
    on_save: Callable[[], None]
    save_every: int = 200
    log_every: int = 20

    @property
    def parts(self) -> dict[str, nn.Module]:
        return {"model": self.model.model, "heads": self.heads}

    def run(self, progress: store.Progress, until: float) -> bool:
        """Trains from where `progress` stands; False where the clock (`time.time()`) reached `until` first."""
        resumed = progress.step > 0
        while progress.stage < len(self.recipe.stages):
            stage = self.recipe.stages[progress.stage]
            if not self._run_stage(stage, progress, until, resumed):
                return False
            resumed = False
            progress.stage, progress.step = progress.stage + 1, 0
            store.save(self.folder, self.parts, None, progress)
        return True

    def _run_stage(self, stage: Stage, progress: store.Progress, until: float, resumed: bool) -> bool:
        optimizer = self._optimizer(stage)
        if resumed:
            store.load_optimizer(self.folder, optimizer)
        see = torch.compile(self.forward.see, dynamic=False) if self.compiled else self.forward.see
        answer = torch.compile(self.forward, dynamic=False) if self.compiled else self.forward
        step_of = _Step(self, stage, see, answer)
        batches = Batches(self.recipe, stage, progress.stage + 1)
        started = time.time()
        totals: dict[str, float] = {}
        while progress.step < stage.steps:
            rate = rate_at(stage, self.recipe.warm_up, progress.step)
            for group in optimizer.param_groups:
                group["lr"] = rate
            batch = batches.at(progress.step, kind_weights(progress.running))
            loss, seen = step_of(batch, progress)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            seen["norm"] = float(nn.utils.clip_grad_norm_(parameters, self.recipe.clip_norm))
            optimizer.step()
            progress.step += 1
            for key, value in seen.items():
                totals[key] = totals.get(key, value) * 0.9 + value * 0.1
            if progress.step % self.log_every == 0:
                self._log(stage, progress, rate, totals, (time.time() - started) / self.log_every)
                started = time.time()
            if progress.step % self.save_every == 0 or time.time() > until:
                store.save(self.folder, self.parts, optimizer, progress)
                self.on_save()
            if time.time() > until:
                return False
        return True

    def _optimizer(self, stage: Stage) -> torch.optim.Optimizer:
        modules: list[nn.Module] = (
            [self.model.model, self.heads] if stage.questions else [self.model.model.visual, self.heads]
        )
        parameters = [p for module in modules for p in module.parameters()]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.recipe.decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=stage.rate, betas=(0.9, 0.98))

    def _log(
        self, stage: Stage, progress: store.Progress, rate: float, totals: Mapping[str, float], seconds: float
    ) -> None:
        entry = {
            "stage": stage.name,
            "step": progress.step,
            "seconds_a_step": round(seconds, 3),
            "rate": float(f"{rate:.3g}"),
            **{k: round(v, 4) for k, v in totals.items()},
            "running": {k: round(v, 3) for k, v in progress.running.items()},
        }
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")
        sys.stdout.write(json.dumps(entry) + "\n")
        sys.stdout.flush()


@dataclass
class _Step:
    """Loss and figures of one batch."""

    trainer: Trainer
    stage: Stage
    see: Callable[[torch.Tensor], torch.Tensor]
    answer: Callable[..., Seen]

    def __post_init__(self) -> None:
        vocabulary = self.trainer.tokenizer.get_vocab()
        self.colours = torch.tensor([vocabulary["\u0120" + colour] for colour in COLOURS])

    def __call__(self, batch: Batch, progress: store.Progress) -> tuple[torch.Tensor, dict[str, float]]:
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
        told = self._tell(out.rows, packed, batch, progress)
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

    def _tell(self, rows: torch.Tensor, packed: Packed, batch: Batch, progress: store.Progress) -> torch.Tensor:
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
            progress.running[kind] = progress.running.get(kind, mean) * keep + mean * (1 - keep)
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


def kind_weights(running: Mapping[str, float]) -> dict[str, float]:
    """How much to ask of each kind: more of what is not known yet."""
    return {kind: 0.2 + (1 - running.get(kind, 0.5)) for kind in KINDS}


def rate_at(stage: Stage, warm_up: int, step: int) -> float:
    """Learning rate of a step: linear up, then half a cosine down to the stage's last."""
    warm_up = min(warm_up, stage.steps // 4)
    if step < warm_up:
        return stage.rate * (step + 1) / warm_up
    way = (step - warm_up) / max(1, stage.steps - warm_up)
    return stage.last_rate + (stage.rate - stage.last_rate) * 0.5 * (1 + math.cos(math.pi * way))
