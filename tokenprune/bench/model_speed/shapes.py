# SPDX-License-Identifier: Apache-2.0
"""Model shapes that are built with random weights: what a forward costs does not depend on what the weights are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

from tokenprune.bench.model_speed.llava_shapes import LLAVA_SHAPES
from tokenprune.bench.model_speed.qwen3_5_shapes import QWEN3_5_SHAPES
from tokenprune.bench.model_speed.qwen3_shapes import QWEN3_SHAPES
from tokenprune.bench.model_speed.qwen_config import MARKS, STD, DecoderSizes, text_config
from tokenprune.errors import InvalidValueError, ModelLoadError
from tokenprune.messages import not_one_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

SEED = 0


class AnyShape(Protocol):
    """Sizes of a model of any family."""

    @property
    def cpu_dtype(self) -> torch.dtype:
        """What it is built in on a CPU where nothing else is asked for."""
        ...

    def config(self) -> PretrainedConfig:
        """The library's configuration."""
        ...


@dataclass(frozen=True)
class Tower:
    """Sizes of a vision tower; ``full`` are the blocks that attend over whole frames, the others within windows."""

    depth: int = 32
    hidden: int = 1280
    heads: int = 16
    intermediate: int = 3420
    full: tuple[int, ...] = (7, 15, 23, 31)


@dataclass(frozen=True)
class Shape(DecoderSizes):
    """Sizes of a Qwen2.5-VL.

    Args:
        vocabulary: rows of the embedding.
        sections: frequencies of a head that turn with time, height and width; they add up to half a head.
        tower: the vision tower.
    """

    vocabulary: int
    sections: tuple[int, int, int] = (16, 24, 24)
    tower: Tower = Tower()

    def config(self) -> PretrainedConfig:
        """The library's configuration, with the control tokens of the released models."""
        from transformers import Qwen2_5_VLConfig

        tower = self.tower
        rope = {"rope_theta": 1e6, "mrope_section": list(self.sections)}
        return Qwen2_5_VLConfig(
            text_config=text_config(self, self.vocabulary, 128000, rope),
            vision_config={
                "depth": tower.depth,
                "hidden_size": tower.hidden,
                "intermediate_size": tower.intermediate,
                "num_heads": tower.heads,
                "patch_size": 14,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
                "window_size": 112,
                "fullatt_block_indexes": list(tower.full),
                "out_hidden_size": self.hidden,
                "tokens_per_second": 2,
                "initializer_range": STD,
            },
            tie_word_embeddings=self.tied,
            **MARKS,
        )


SHAPES: Mapping[str, AnyShape] = {
    "qwen2.5-vl-3b": Shape(36, 2048, 16, 2, 11008, 151936, tied=True),
    "qwen2.5-vl-7b": Shape(28, 3584, 28, 4, 18944, 152064, tied=False),
    # Not a released model: the decoder of Qwen2.5-0.5B behind a small tower, a size that a CPU can measure.
    "qwen2.5-vl-0.5b-like": Shape(
        24,
        896,
        14,
        2,
        4864,
        151936,
        tied=True,
        sections=(8, 12, 12),
        tower=Tower(depth=8, hidden=384, heads=6, intermediate=1024, full=(3, 7)),
        cpu_dtype=torch.float32,
    ),
    **QWEN3_SHAPES,
    **QWEN3_5_SHAPES,
    **LLAVA_SHAPES,
}
"""Name -> shape; those whose names end in ``-like`` are not of released models."""


def shape_named(name: str) -> AnyShape:
    """The shape; raises :class:`InvalidValueError` for a name that there is not."""
    if name not in SHAPES:
        raise InvalidValueError(not_one_of("shape", SHAPES, name))
    return SHAPES[name]


def build(name: str, device: torch.device, dtype: str | None = None, attn: str | None = None) -> PreTrainedModel:
    """A model of this shape with random weights, made where and in what it runs: there is no larger copy first.

    Args:
        name: one of :data:`SHAPES`.
        device: where it runs.
        dtype: one of :data:`tokenprune.hf.frontend.loading.DTYPES`; None and ``auto``: bfloat16, or the shape's
            ``cpu_dtype`` on a CPU.
        attn: attention implementation; None leaves the library's choice.

    Raises:
        InvalidValueError: an unknown shape or dtype.
        ModelLoadError: the machine cannot hold it, or has no such attention.
    """
    from tokenprune.hf.frontend.loading import dtype_named, first_line

    shape = shape_named(name)
    kind = None if dtype in (None, "auto") else dtype_named(dtype, device)
    if not isinstance(kind, torch.dtype):
        kind = shape.cpu_dtype if device.type == "cpu" else torch.bfloat16
    from transformers import AutoModelForImageTextToText

    options: dict[str, Any] = {"dtype": kind}
    if attn is not None:
        options["attn_implementation"] = attn
    try:
        with torch.random.fork_rng(_gpus(device)), torch.device(device):
            torch.manual_seed(SEED)
            model = AutoModelForImageTextToText.from_config(shape.config(), **options)
    except Exception as error:  # what the library raises about backends, and torch about memory
        raise ModelLoadError(f"cannot build {name}: {first_line(error)}") from error
    return model.eval()


def _gpus(device: torch.device) -> list[int]:
    if device.type != "cuda":
        return []
    return [torch.cuda.current_device() if device.index is None else device.index]
