# SPDX-License-Identifier: Apache-2.0
"""The training script: the same run whether or not it was stopped on the way."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_qwen_world import store
from tiny_qwen_world.build import build
from tiny_qwen_world.data import Batches, keep_some
from tiny_qwen_world.labels import dense_labels
from tiny_qwen_world.loop import Trainer, kind_weights, rate_at
from tiny_qwen_world.outside import NOTE, outside_question
from tiny_qwen_world.packing import pack
from tiny_qwen_world.processor import build_processor
from tiny_qwen_world.recipe import RECIPE, Recipe, Stage

from tokenprune.bench.world import questions_of, sample_scene

SMALL = Recipe(
    stages=(
        Stage("see", 2, 2, 0, 1e-3, 1e-4, 1.0),
        Stage("few", 1, 2, 3, 1e-3, 1e-4, 0.1, visual_tokens=20),
        Stage("all", 2, 2, 3, 1e-3, 1e-4, 0.1),
    ),
    fresh=1,
    reuse=2,
    mp4_share=0.0,
)


def _trainer(folder: Path) -> Trainer:
    built = build(0, torch.device("cpu"))
    return Trainer(
        model=built.model,
        heads=built.heads,
        forward=built.forward,
        tokenizer=built.processor.tokenizer,
        recipe=SMALL,
        folder=folder,
        device=torch.device("cpu"),
        compiled=False,
        on_save=lambda: None,
        log_every=1,
    )


def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    whole.mkdir()
    parted.mkdir()
    straight = _trainer(whole)
    assert straight.run(store.Progress(), math.inf)
    stops = 0
    while True:
        trainer = _trainer(parted)
        progress = store.load_progress(parted)
        if progress is not None:
            store.load_parts(parted, trainer.parts)
        # The clock has always run out: each call takes one step, saves and stops.
        if trainer.run(progress or store.Progress(), 0.0):
            break
        stops += 1
    assert stops == 5
    for (name, one), (_, two) in zip(straight.model.state_dict().items(), trainer.model.state_dict().items()):
        torch.testing.assert_close(one, two, atol=1e-6, rtol=1e-5, msg=name)
    logged = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert [entry["stage"] for entry in logged] == ["see", "see", "few", "all", "all"]
    assert all(math.isfinite(entry["dense"]) for entry in logged)


def test_batches_depend_on_the_step_alone() -> None:
    stage = SMALL.stages[-1]
    weights = kind_weights({})
    one = [Batches(SMALL, stage, 2).at(step, weights) for step in (0, 1, 2)]
    again = Batches(SMALL, stage, 2)
    for step in (2, 0, 1):
        batch = again.at(step, weights)
        assert torch.equal(batch.frames, one[step].frames)
        assert batch.turns == one[step].turns


def test_training_never_sees_held_out_seeds() -> None:
    size = max(stage.steps * stage.clips for stage in RECIPE.stages)
    assert size < 1_000_000
    assert (len(RECIPE.stages) + 1) * 1_000_000 < 500_000_000


def test_kinds_that_are_not_known_are_asked_more() -> None:
    weights = kind_weights({"shape": 1.0, "count": 0.2})
    assert weights["count"] > weights["direction"] > weights["shape"] > 0


def test_the_rate_warms_up_and_falls() -> None:
    stage = RECIPE.stages[-1]
    rates = [rate_at(stage, RECIPE.warm_up, step) for step in range(stage.steps)]
    assert rates[0] < stage.rate / 50
    assert max(rates) == pytest.approx(stage.rate)
    assert rates[-1] == pytest.approx(stage.last_rate, rel=0.01)


def test_what_is_small_is_always_kept() -> None:
    rng = np.random.default_rng(0)
    for seed in range(30):
        labels = dense_labels(sample_scene(seed))
        kept = keep_some(labels, 20, rng)
        small = np.flatnonzero((labels.flash > 0) | (labels.letter > 0))
        assert len(kept) == 20
        assert (np.diff(kept) > 0).all()
        assert set(small) <= set(kept)
    assert np.array_equal(keep_some(labels, 288, rng), np.arange(288))


def test_no_world_question_is_too_long_for_its_row() -> None:
    tokenizer = build_processor().tokenizer
    texts = {q.text for seed in range(3000) for q in questions_of(sample_scene(seed))}
    pack(tokenizer, [[(text, "red") for text in sorted(texts)]], RECIPE.row)
    rng = np.random.default_rng(1)
    pack(tokenizer, [[(outside_question(rng), NOTE) for _ in range(2000)]], RECIPE.outside_row)


@pytest.mark.slow
def test_the_command_writes_a_checkpoint(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "docs" / "examples" / "tiny-qwen-world"
    command = [sys.executable, "-m", "tiny_qwen_world", "--out", str(tmp_path), "--eager", "--minutes", "0"]
    done = subprocess.run(command, cwd=example, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "stopped: go on with --resume\n"
    assert (tmp_path / "export" / "model.safetensors").is_file()
