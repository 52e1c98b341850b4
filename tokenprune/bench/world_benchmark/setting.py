# SPDX-License-Identifier: Apache-2.0
"""What a result says of the model, the questions and the libraries it was measured with."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenprune.bench.benchmark import BenchmarkRequest
from tokenprune.bench.world.clip import HELD_OUT
from tokenprune.bench.world.questions import KINDS
from tokenprune.bench.world.scene import WORLD_VERSION
from tokenprune.bench.world_benchmark.asked import SEEDS_APART, AskedClip
from tokenprune.bench.world_benchmark.budgets import Decoder

if TYPE_CHECKING:
    from tokenprune.hf.frontend.family import Family, Loaded


def describe_setting(
    family: Family, request: BenchmarkRequest, clips: Sequence[AskedClip], loaded: Loaded, decoder: Decoder
) -> dict[str, Any]:
    """JSON-ready; equal for runs that ask the same of the same."""
    import torch

    kinds = [question.kind for clip in clips for question in clip.questions]
    return {
        "model": "shipped" if request.model is None else request.model,
        "weights_sha256": _fingerprint(family, request.model),
        "dtype": str(loaded.model.dtype).removeprefix("torch."),
        "device": loaded.model.device.type,
        "attention": loaded.model.config._attn_implementation,
        "threads": torch.get_num_threads(),
        "suite": request.suite,
        "questions": len(kinds),
        "questions_by_kind": {kind: kinds.count(kind) for kind in KINDS},
        "clips": len(clips),
        "seed": request.seed,
        "first_clip": HELD_OUT + request.seed * SEEDS_APART,
        "last_clip": clips[-1].scene.seed,
        "visual_tokens": decoder.tokens,
        "decoder_layers": decoder.depth,
        "counts": {"word": "the answer begins with the right word", "strict": "it is the right word and ends there"},
    }


def library_versions() -> dict[str, str]:
    """Of the libraries and of the world."""
    import torch
    import transformers

    import tokenprune

    return {
        "tokenprune": tokenprune.__version__,
        "world": str(WORLD_VERSION),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
    }


def _fingerprint(family: Family, model: str | None) -> str | None:
    """Of the weights, where they are one file on this machine."""
    from tokenprune.hf.frontend.loading import shipped

    weights = (shipped(family) if model is None else Path(model)) / "model.safetensors"
    if not weights.is_file():
        return None
    digest = hashlib.sha256()
    with open(weights, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
