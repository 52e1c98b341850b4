# SPDX-License-Identifier: Apache-2.0
"""What a vision encoder's last full attention says of each visual token, read by hooks while the encoder runs.

Nothing is recomputed but the product of queries and keys, one frame after the other and a piece of its rows at a time;
what the encoder puts out stays the same, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tokenprune.adapter import Removable
from tokenprune.hf.encoded import Encoded, recall, remember

LOGIT_BYTES = 64 * 2**20
"""Most bytes of (heads x rows x patches) alive at a time (law 9)."""

Grid = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class VisionEncoder:
    """Where the vision encoder of a model can be read.

    Args:
        tower: module that is called with ``grid_thw`` ``(n, 3)``, the frames, rows and columns of patches of each
            video or image, and puts out ``pooler_output`` ``(N, D)``, the visual tokens of all of them in raster order.
        attention: attention module of its last block with full attention inside each frame. It has ``num_heads`` and
            ``scaling``, is called with ``position_embeddings=(cos, sin)``, each ``(patches, head_dim)``, and its
            ``qkv`` puts out ``(patches, 3 * heads * head_dim)``; patches that make one token follow each other.
        side: so many patches, along each side, make one token.
        order: from the ``(T, H, W)`` of the tokens of each video or image to ``(N,)`` int64, the raster index of the
            token that stands at each place inside the encoder; None: tokens stand in raster order.
    """

    tower: nn.Module
    attention: nn.Module
    side: int
    order: Callable[[Sequence[Grid]], Tensor] | None = None

    def grids(self, grid_thw: Tensor) -> list[Grid]:
        """``(T, H, W)`` of the tokens of each video or image."""
        return [(t, h // self.side, w // self.side) for t, h, w in grid_thw.tolist()]


def embedding_dtype(text: PreTrainedModel) -> torch.dtype:
    """The dtype in which a decoder gets visual tokens: that of its embeddings."""
    weight: Any = text.get_input_embeddings().weight
    return weight.dtype


@contextmanager
def reading(encoder: VisionEncoder | None, names: Sequence[str], dtype: torch.dtype) -> Generator[None, None, None]:
    """While this is open, the signals of what the encoder puts out are kept as long as that itself lives.

    Args:
        encoder: where it is; None: nothing is read.
        names: signals among :data:`tokenprune.signals.OF_THE_ENCODER`.
        dtype: that of the decoder's embeddings, in which the tokens will be met again.
    """
    hooks = EncoderHooks(encoder, names, dtype, with_features=True).put() if encoder and names else []
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class EncoderHooks:
    """The hooks on one encoder; what they hold of a forward is gone when it ends, or when the next begins.

    Args:
        encoder: where it is.
        names: the signals to read.
        dtype: that of the decoder's embeddings.
        with_features: keep them as long as the features live; else the last ones, see :func:`remember`.
    """

    def __init__(
        self, encoder: VisionEncoder, names: Sequence[str], dtype: torch.dtype, *, with_features: bool = False
    ) -> None:
        self.encoder = encoder
        self.names = tuple(names)
        self.dtype = dtype
        self.with_features = with_features
        self._grids: list[Grid] = []
        self._rotary: tuple[Tensor, Tensor] | None = None
        self._found: dict[str, Tensor] = {}

    @property
    def modules(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        """Those that have hooks: the tower, the attention and its projection."""
        return self.encoder.tower, self.encoder.attention, self.encoder.attention.get_submodule("qkv")

    def put(self) -> list[Removable]:
        """Put them on."""
        tower, attention, projection = self.modules
        return [
            tower.register_forward_pre_hook(self._begin, with_kwargs=True),
            attention.register_forward_pre_hook(self._see_rotary, with_kwargs=True),
            projection.register_forward_hook(self._see_projected),
            tower.register_forward_hook(self._end),
        ]

    def recall(self, features: Iterable[Tensor]) -> list[Mapping[str, Tensor]]:
        """For each ``(N, D)`` features the signals with which the encoder put them out."""
        return recall(self.encoder.tower, features)

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._grids = self.encoder.grids(kwargs["grid_thw"] if "grid_thw" in kwargs else args[1])
        self._found = {}

    def _see_rotary(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._rotary = kwargs["position_embeddings"]

    @torch.no_grad()
    def _see_projected(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        rotary, self._rotary = self._rotary, None
        patches = sum(map(math.prod, self._grids)) * self.encoder.side**2
        if rotary is None or len(output) != patches:  # not what was announced: features that were encoded before
            return
        with torch.autocast(output.device.type, enabled=False):
            self._found = self._signals(output, rotary)

    @torch.no_grad()
    def _end(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        found, self._found = self._found, {}
        sizes = [math.prod(grid) for grid in self._grids]
        features = getattr(output, "pooler_output", None)
        if not found or not isinstance(features, Tensor) or len(features) != sum(sizes):
            return
        parts = {name: value.split(sizes) for name, value in found.items()}
        signals = [{name: parts[name][i].clone() for name in parts} for i in range(len(sizes))]
        encoded = Encoded.of(features.to(self.dtype).split(sizes), signals)
        remember(self.encoder.tower, encoded, features if self.with_features else None)

    def _signals(self, projected: Tensor, rotary: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Of all tokens of the call, each in raster order."""
        heads, scaling = self.encoder.attention.num_heads, self.encoder.attention.scaling
        queries, keys, _ = projected.unflatten(-1, (3, int(heads), -1)).unbind(1)  # type: ignore[arg-type]
        cos, sin = (part.float() for part in rotary)
        frames: dict[str, list[Tensor]] = {name: [] for name in self.names}
        start = 0
        for length in [h * w * self.encoder.side**2 for t, h, w in self._grids for _ in range(t)]:
            part = slice(start, start + length)
            frame = Frame(queries[part], keys[part], cos[part], sin[part], float(scaling), self.encoder.side**2)  # type: ignore[arg-type]
            for name, values in frames.items():
                values.append(SIGNALS[name](frame))
            start += length
        signals = {name: torch.cat(values) for name, values in frames.items()}
        if self.encoder.order is None:
            return signals
        order = self.encoder.order(self._grids).to(projected.device)
        return {name: torch.empty_like(value).index_copy_(0, order, value) for name, value in signals.items()}


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding by halves: ``(heads, n, head_dim)`` with ``cos`` and ``sin`` ``(n, head_dim)``."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


@dataclass(frozen=True, eq=False)
class Frame:
    """Queries and keys of one frame's n patches, ``(n, heads, head_dim)`` before RoPE, and its rotation.

    ``each`` patches that follow each other make one token.
    """

    queries: Tensor
    keys: Tensor
    cos: Tensor
    sin: Tensor
    scaling: float
    each: int

    def rotated(self, x: Tensor) -> Tensor:
        """``(heads, n, head_dim)`` fp32, rounded as the encoder's own attention gets it."""
        return rotate(x.transpose(0, 1).float(), self.cos, self.sin).to(x.dtype).float()


def column(frame: Frame) -> Tensor:
    """Attention that each token gets, the mean over heads, queries and its patches: ``(n / each,)``."""
    queries, keys = frame.rotated(frame.queries) * frame.scaling, frame.rotated(frame.keys).mT
    heads, count, _ = queries.shape
    total = queries.new_zeros(count)
    for rows in queries.split(max(1, LOGIT_BYTES // (2 * 4 * heads * count)), dim=1):  # logits and probabilities
        total += torch.softmax(rows @ keys, dim=-1).sum((0, 1))
    return (total / (heads * count)).view(-1, frame.each).mean(1)


def pooled(frame: Frame) -> Tensor:
    """Attention of the mean query on the mean keys of each token, the mean over heads: ``(n / each,)``, sums to 1."""
    query = frame.rotated(frame.queries).mean(1, keepdim=True) * frame.scaling
    keys = frame.rotated(frame.keys).unflatten(1, (-1, frame.each)).mean(2)
    return torch.softmax(query @ keys.mT, dim=-1).mean((0, 1))


def mean_keys(frame: Frame) -> Tensor:
    """Keys before RoPE, the mean over heads and each token's patches: ``(n / each, head_dim)``."""
    return frame.keys.float().unflatten(0, (-1, frame.each)).mean((1, 2))


SIGNALS: Mapping[str, Callable[[Frame], Tensor]] = {
    "encoder_column": column,
    "encoder_pooled": pooled,
    "encoder_keys": mean_keys,
}
