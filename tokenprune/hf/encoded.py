# SPDX-License-Identifier: Apache-2.0
"""Signals of the vision encoder belong to features, and are found again by them, whichever way the features came.

Features are copied between encoder and decoder (for beams, for several questions about a clip, into the embeddings),
but never changed: their bits name what was encoded, and a number made of those is all that is kept of them.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

REMEMBERED_BYTES = 256 * 2**20
"""Most bytes of signals that are kept for one encoder; what it put out in its last calls is kept in any case."""

LAST_CALLS = 2
"""An encoder is called once for the images and once for the videos of a batch."""

PIECE_BYTES = 64 * 2**20

Name = tuple[int, int]
"""Number of tokens, and a checksum of their bits."""

_remembered: weakref.WeakKeyDictionary[nn.Module, list[_Call]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Encoded:
    """The signals of one video or image.

    Args:
        name: of its features, see :func:`names_of`.
        signals: of each of its tokens, in raster order.
    """

    name: Name
    signals: Mapping[str, Tensor]

    @classmethod
    def of(cls, features: Sequence[Tensor], signals: Sequence[Mapping[str, Tensor]]) -> list[Encoded]:
        """The features ``(N, D)`` and signals of several, in the same order."""
        return [cls(name, known) for name, known in zip(names_of(features), signals)]

    @property
    def nbytes(self) -> int:
        return sum(value.nbytes for value in self.signals.values())


@dataclass(frozen=True, eq=False)
class _Call:
    """What one call of an encoder has put out; ``owner``: the features, where it is kept as long as those live."""

    encoded: list[Encoded]
    owner: weakref.ref[Tensor] | None

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for each in self.encoded)


def remember(tower: nn.Module, encoded: list[Encoded], owner: Tensor | None = None) -> None:
    """Keep what a call of this encoder has put out.

    Args:
        tower: the encoder.
        encoded: of each video and image of the call.
        owner: it is kept as long as this tensor lives; None: until it becomes too much, the oldest is forgotten first.
    """
    calls = [call for call in _remembered.get(tower, ()) if call.owner is None or call.owner() is not None]
    calls.append(_Call(encoded, None if owner is None else weakref.ref(owner)))
    free = deque(call for call in calls if call.owner is None)
    held = sum(call.nbytes for call in free)
    while held > REMEMBERED_BYTES and len(free) > LAST_CALLS:
        oldest = free.popleft()
        held -= oldest.nbytes
        calls.remove(oldest)
    _remembered[tower] = calls


def recall(tower: nn.Module, features: Iterable[Tensor]) -> list[Mapping[str, Tensor]]:
    """For each ``(N, D)`` features the signals with which this encoder put them out; empty where they are not known."""
    known: dict[Name, dict[str, Tensor]] = {}
    for call in _remembered.get(tower, ()):
        for each in call.encoded:
            known.setdefault(each.name, {}).update(each.signals)
    return [known.get(name, {}) for name in names_of(features)]


def names_of(features: Iterable[Tensor]) -> list[Name]:
    """What tells features ``(N, D)`` apart: the same for the same bits, on every device (this waits for it, once)."""
    counted = [(len(each), _checksum(each)) for each in features]
    numbers = torch.stack([number for _, number in counted]).tolist() if counted else []
    return [(count, number) for (count, _), number in zip(counted, numbers)]


def _checksum(features: Tensor) -> Tensor:
    """``()`` int64; sums of whole numbers wrap around and so do not depend on their order."""
    bits = features.detach().contiguous().view(_WHOLE[features.element_size()])
    device, (count, width) = bits.device, bits.shape
    across, down = _weights(width, 1, device), _weights(count, 2, device)
    total = torch.zeros((), dtype=torch.int64, device=device)
    step = max(1, PIECE_BYTES // (3 * 8 * max(1, width)))
    for begin in range(0, count, step):
        rows = slice(begin, begin + step)
        # Mixed once more, so that equal differences in two tokens do not cancel out.
        line = _mixed((bits[rows].long() * across).sum(1))
        total = total + (line * down[rows]).sum()
    return total


_WHOLE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _weights(count: int, seed: int, device: torch.device) -> Tensor:
    """``(count,)`` odd int64 numbers, always the same."""
    places = torch.arange(1, count + 1, dtype=torch.int64, device=device)
    return _mixed(places * 0x9E3779B97F4A7C1 + seed) | 1


def _mixed(x: Tensor) -> Tensor:
    """Spread every bit over all others: multiply, and fold the upper half onto the lower, twice."""
    for factor in (0x2545F4914F6CDD1D, 0x369DEA0F31A53F85):
        x = (x ^ (x >> 32)) * factor
    return x ^ (x >> 29)
