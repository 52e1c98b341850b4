# SPDX-License-Identifier: Apache-2.0
"""What a clip is, for each kind of model whose speed is measured: pixels, placeholders, what ``generate`` is given."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from tokenprune.bench.model_speed.layout import ClipLayout, Grid, frame_by_frame, one_run
from tokenprune.bench.model_speed.patches import Patches
from tokenprune.bench.model_speed.square_frames import SquareFrames
from tokenprune.errors import UnsupportedModeError
from tokenprune.hf.families.table import ONEVISION_SQUARES
from tokenprune.hf.frontend.family import Parts
from tokenprune.hf.frontend.features import VideoFeatures
from tokenprune.messages import shown

if TYPE_CHECKING:
    from tokenprune.bench.model_speed.prompt import SpeedPrompt


class ClipKind(Protocol):
    """How the models of a kind are shown a clip."""

    def layout(self, config: Any, grid: Grid) -> ClipLayout:
        """Where the clip stands; raises :class:`InvalidValueError` for a grid that no clip of the model has."""
        ...

    def processor(self, config: Any) -> Any:
        """A video processor for a model that has none, because its weights are random."""
        ...

    def pixels(self, processor: Any, video: Path, grid: Grid, batch: int) -> Tensor:
        """A video file as the vision tower takes it, fp32 on the CPU; the processor's resizing is left out."""
        ...

    def beside(self, config: Any, ids: Tensor, pixels: Tensor, grid: Grid) -> dict[str, Tensor]:
        """What ``generate`` is given beside the ``(B, L)`` ids and their mask, where the clips are encoded already."""
        ...

    def encode(self, parts: Parts, pixels: Tensor, prompt: SpeedPrompt) -> VideoFeatures:
        """What the model makes of all clips: ``(B * T*H*W, D)``."""
        ...

    def shown(self, parts: Parts, prompt: SpeedPrompt) -> AbstractContextManager[None]:
        """While this is open the decoder is handed the prompt's features, whatever the tower is asked."""
        ...

    def positions(self, parts: Parts, prompt: SpeedPrompt) -> Tensor:
        """Positions as the decoder takes them: ``(B, L)``, or ``(3, B, L)`` of M-RoPE."""
        ...


_ONE_RUN, _FRAME_BY_FRAME = Patches(one_run), Patches(frame_by_frame)

KINDS: Mapping[str, ClipKind] = MappingProxyType(
    {
        "qwen2_vl": _ONE_RUN,
        "qwen2_5_vl": _ONE_RUN,
        "qwen3_vl": _FRAME_BY_FRAME,
        "qwen3_vl_moe": _FRAME_BY_FRAME,
        "qwen3_5": _FRAME_BY_FRAME,
        "llava_onevision": SquareFrames(ONEVISION_SQUARES),
    }
)
"""Model type -> how its models are shown a clip; of others nobody has tried it."""


def clip_kind(config: Any) -> ClipKind:
    """The kind of a model with this configuration.

    >>> clip_kind(model.config).layout(model.config, (2, 1, 3)).length
    8

    Raises:
        UnsupportedModeError: it is of a type whose prompts are not known here.
    """
    if config.model_type not in KINDS:
        known = ", ".join(KINDS)
        raise UnsupportedModeError(f"speed is measured of {known} models, this one is {shown(config.model_type)}")
    return KINDS[config.model_type]
