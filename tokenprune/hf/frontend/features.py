# SPDX-License-Identifier: Apache-2.0
"""A clip that is encoded once and asked about many times."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tokenprune.hf.encoder import embedding_dtype, reading
from tokenprune.hf.frontend.family import Parts
from tokenprune.signals import OF_THE_ENCODER


@dataclass(frozen=True, eq=False)
class VideoFeatures:
    """What a vision tower made of one clip.

    As long as the tokens live, operators find what the tower says of them beside.

    >>> len(VideoFeatures(torch.zeros(4, 8)).tokens)
    4

    Args:
        tokens: ``(N, D)``, one row for each visual token.
        deepstack: of towers that give features to the first layers as well, ``(N, D)`` for each of those layers.
    """

    tokens: Tensor
    deepstack: tuple[Tensor, ...] = ()

    def repeat(self, rows: int) -> VideoFeatures:
        """The same clip shown in so many prompts."""
        if rows == 1:
            return self
        return VideoFeatures(self.tokens.repeat(rows, 1), tuple(layer.repeat(rows, 1) for layer in self.deepstack))


def can_encode_once(parts: Parts, inputs: Mapping[str, Tensor]) -> bool:
    """Whether the tower is called with patches and grids, so that it can be shown a little and give out the rest."""
    return "video_grid_thw" in inputs and hasattr(parts.tower, "spatial_merge_size")


@torch.no_grad()
def encode_video(parts: Parts, inputs: Mapping[str, Tensor], needs: Sequence[str] = OF_THE_ENCODER) -> VideoFeatures:
    """What the vision tower makes of the first clip of ``inputs``.

    >>> from tokenprune_qwen25vl.family import QWEN25VL
    >>> len(encode_video(QWEN25VL.parts(model), inputs).tokens)
    288

    Args:
        parts: the model whose tower runs.
        inputs: as :func:`tokenprune.hf.frontend.chat.model_inputs` makes them, where :func:`can_encode_once`.
        needs: the signals that operators will ask for; others among the tower's are not read.
    """
    tower = parts.tower
    grid = inputs["video_grid_thw"][:1]
    patches = inputs["pixel_values_videos"][: int(grid.prod())]
    made: list[VideoFeatures] = []

    def see(module: nn.Module, args: Any, output: Any) -> None:
        made.append(VideoFeatures(output.pooler_output, tuple(getattr(output, "deepstack_features", None) or ())))

    # The model's own method is asked, because some families show their tower each frame as a video of its own.
    hook = tower.register_forward_hook(see)
    try:
        with reading(parts.encoder, needs, embedding_dtype(parts.text)):
            parts.prompt.get_video_features(patches.to(tower.device), video_grid_thw=grid.to(tower.device))
    finally:
        hook.remove()
    return made[0]


def encode(parts: Parts, inputs: Mapping[str, Tensor], needs: Sequence[str] = OF_THE_ENCODER) -> Tensor:
    """The tokens alone of :func:`encode_video`, ``(N, D)``, for towers that give out nothing beside.

    >>> from tokenprune_qwen25vl.family import QWEN25VL
    >>> encode(QWEN25VL.parts(model), inputs).shape[0]
    288
    """
    return encode_video(parts, inputs, needs).tokens


@contextmanager
def encoded_before(tower: nn.Module, features: Tensor | VideoFeatures) -> Generator[None, None, None]:
    """While this is open the vision tower gives out ``features`` whatever it is asked.

    Only later releases of the library take features that were computed before; this works alike in all of them. The
    tower itself runs on a single visual token, for form: hand ``generate`` the pixels of :func:`few_pixels`.

    >>> from tokenprune_qwen25vl.family import QWEN25VL
    >>> parts = QWEN25VL.parts(model)
    >>> features, few = encode(parts, inputs), few_pixels(parts.tower, inputs["pixel_values_videos"])
    >>> with encoded_before(parts.tower, features):
    ...     ids = model.generate(**{**inputs, "pixel_values_videos": few}, max_new_tokens=2)
    """
    given = features if isinstance(features, VideoFeatures) else VideoFeatures(features)
    side = int(getattr(tower, "spatial_merge_size"))  # noqa: B009 (nn.Module types its attributes as modules)

    def show_little(module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**kwargs, "grid_thw": torch.tensor([[1, side, side]], device=given.tokens.device)}

    def give_out(module: nn.Module, args: Any, output: Any) -> Any:
        output.pooler_output = given.tokens
        if given.deepstack:
            output.deepstack_features = list(given.deepstack)
        return output

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
