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

from tiny_qwen_world import store
from tiny_qwen_world.data import Batches
from tiny_qwen_world.forward import TrainingForward
from tiny_qwen_world.heads import DenseHeads
from tiny_qwen_world.recipe import Recipe, Stage
from tiny_qwen_world.step import Step
from tokenprune.bench.world.questions import KINDS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, Qwen2_5_VLForConditionalGeneration


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
        step_of = Step(self, stage, see, answer)
        batches = Batches(self.recipe, stage, progress.stage + 1)
        started = time.time()
        totals: dict[str, float] = {}
        while progress.step < stage.steps:
            rate = rate_at(stage, self.recipe.warm_up, progress.step)
            for group in optimizer.param_groups:
                group["lr"] = rate
            batch = batches.at(progress.step, kind_weights(progress.running))
            loss, seen = step_of(batch, progress.running)
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
