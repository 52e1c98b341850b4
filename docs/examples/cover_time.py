# SPDX-License-Identifier: Apache-2.0
"""Processor time of a plan of Cover and of STMerge, in turn, on made-up clips that are half static.

OMP_NUM_THREADS=1 python docs/examples/cover_time.py --frames 1,8,48 --rounds 7
"""

from __future__ import annotations

import argparse
import statistics

import torch

import tokenprune as tp
from tokenprune.bench.speed.clock import processed
from tokenprune.bench.speed.content import scene_features

ROWS, COLUMNS, WIDTH = 16, 18, 3584
OPERATORS = [operator(keep_ratio=ratio) for ratio in (0.1, 0.25) for operator in (tp.Cover, tp.STMerge)]


def milliseconds(frames: int, rounds: int) -> list[float]:
    """The median of each of :data:`OPERATORS`, after a first run that is not counted."""
    grid = (frames, ROWS, COLUMNS)
    features = scene_features(grid, WIDTH, static=0.5, dtype=torch.float32, device=torch.device("cpu"))
    seconds: list[list[float]] = [[] for _ in OPERATORS]
    for counted in range(rounds + 1):
        for operator, taken in zip(OPERATORS, seconds):
            tokens = tp.VisualTokens(features, grid)
            _, took = processed(lambda operator=operator, tokens=tokens: operator.plan(tokens))
            if counted:
                taken.append(took)
    return [1000 * statistics.median(taken) for taken in seconds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=lambda text: [int(part) for part in text.split(",")], default=[1, 8, 48])
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for frames in options.frames:
        for operator, took in zip(OPERATORS, milliseconds(frames, options.rounds)):
            print(f"{frames * ROWS * COLUMNS} tokens: {type(operator).__name__} {operator.keep_ratio}: {took:.0f} ms")


if __name__ == "__main__":
    main()
