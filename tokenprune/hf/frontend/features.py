# SPDX-License-Identifier: Apache-2.0
"""A clip that is encoded once and asked about many times."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from tokenprune.hf.encoder import embedding_dtype, reading
from tokenprune.hf.frontend.family import Parts
from tokenprune.signals import OF_THE_ENCODER


@torch.no_grad()
def encode(parts: Parts, inputs: Mapping[str, Tensor], needs: Sequence[str] = OF_THE_ENCODER) -> Tensor:
    """What the vision tower makes of the first clip of ``inputs``: ``(N, D)``, one row for each visual token.

    As long as it lives, operators find what the tower says of these features beside.

    Args:
        parts: the model whose tower runs.
        inputs: as :func:`tokenprune.hf.frontend.chat.model_inputs` makes them.
        needs: the signals that operators will ask for; others among the tower's are not read.
    """
    tower = parts.tower
    grid = inputs["video_grid_thw"][:1]
    patches = inputs["pixel_values_videos"][: int(grid.prod())]
    with reading(parts.encoder, needs, embedding_dtype(parts.text)):
        return tower(patches.to(tower.device, tower.dtype), grid_thw=grid.to(tower.device)).pooler_output


@contextmanager
def encoded_before(tower: nn.Module, features: Tensor) -> Generator[None, None, None]:
    """While this is open the vision tower gives out ``features`` whatever it is asked.

    Only later releases of the library take features that were computed before; this works alike in all of them. The
    tower itself runs on a single visual token, for form: hand ``generate`` the pixels of :func:`few_pixels`.
    """
    side = int(getattr(tower, "spatial_merge_size"))  # noqa: B009 (nn.Module types its attributes as modules)

    def show_little(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**kwargs, "grid_thw": torch.tensor([[1, side, side]], device=features.device)}

    def give_out(module: nn.Module, args: Any, output: Any) -> BaseModelOutputWithPooling:
        return BaseModelOutputWithPooling(pooler_output=features)  # type: ignore[arg-type]

    handles = (
        tower.register_forward_pre_hook(show_little, with_kwargs=True),
        tower.register_forward_hook(give_out),
    )
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def few_pixels(tower: nn.Module, pixels: Tensor) -> Tensor:
    """Pixels of a single visual token, for a tower that is :func:`encoded_before`."""
    return pixels[: int(getattr(tower, "spatial_merge_size")) ** 2].clone()  # noqa: B009
