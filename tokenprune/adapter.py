# SPDX-License-Identifier: Apache-2.0
"""What an adapter tells the runtime about a model; it translates and decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from tokenprune.errors import InvalidValueError
from tokenprune.view import AttentionView

if TYPE_CHECKING:
    from tokenprune.runtime.carrier import PrefillCarrier


@dataclass(frozen=True)
class Accepted:
    """The adapter can serve this model. ``depth`` is its number of decoder layers."""

    depth: int


@dataclass(frozen=True)
class Declined:
    """The adapter cannot serve this model; ``reason`` is one line that says why, or what to install."""

    reason: str


@dataclass(frozen=True, eq=False)
class Prompt:
    """The tokens of one prefill, padding included.

    Args:
        input_ids: ``(B, L)`` ids as the forward received them.
        position_ids: positions as the decoder received them: ``(3, B, L)`` for M-RoPE, ``(B, L)`` otherwise, None
            where the model lets the decoder count.
        valid: ``(B, L)`` bool, False for padding.
    """

    input_ids: Tensor
    position_ids: Tensor | None
    valid: Tensor


@dataclass(frozen=True, eq=False)
class VisualSpan:
    """One video or image of a prompt row.

    Args:
        modality: ``"video"`` or ``"image"``.
        grid: ``(T, H, W)`` of its visual tokens.
        columns: ``(T*H*W,)`` int64 prompt columns in raster order, strictly increasing, not necessarily contiguous.
    """

    modality: str
    grid: tuple[int, int, int]
    columns: Tensor

    def __post_init__(self) -> None:
        frames, height, width = self.grid
        if frames * height * width != len(self.columns):
            raise InvalidValueError(
                f"a {self.modality} of grid {self.grid} has {frames * height * width} tokens, "
                f"but the prompt holds {len(self.columns)}"
            )


class Removable(Protocol):
    """Something put on a model that can be taken off again."""

    def remove(self) -> None: ...


class AttentionReader(Protocol):
    """Reads queries and keys of one decoder layer while it runs a prefill; never an attention matrix."""

    def watch(self, rows: Sequence[Tensor]) -> Sequence[Removable]:
        """Start capturing, for each prompt row the queries at ``rows[b]`` (places in the running sequence)."""
        ...

    def view(
        self,
        row: int,
        earlier_keys: Tensor | None,
        valid_keys: Tensor,
        visual_places: Tensor,
        mass: Tensor | None = None,
    ) -> AttentionView:
        """What the layer just computed, for one prompt row.

        Args:
            row: row of the batch.
            earlier_keys: ``(kv_heads, P, head_dim)`` rotated keys that the cache held before this prefill, or None.
            valid_keys: ``(P + L,)`` bool over earlier and new keys.
            visual_places: ``(N,)`` places of the visual tokens in the running sequence (without the earlier P).
            mass: ``(P + L,)`` fp32 how many tokens each key stands for in the layer's softmax; None: one each.
        """
        ...


class DecoderPort(Protocol):
    """The one place that touches the model: it puts hooks on and lets the carrier decide at each point."""

    def install(self, carrier: PrefillCarrier) -> Sequence[Removable]:
        """Put the hooks on; on any error nothing stays installed."""
        ...
