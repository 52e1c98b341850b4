# SPDX-License-Identifier: Apache-2.0
"""Where a prompt's visual placeholders stand."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from tokenprune.adapter import Prompt


@dataclass(frozen=True)
class PlaceholderRun:
    """One unbroken run of a placeholder id: columns ``[start, stop)`` of prompt row ``row``.

    >>> len(PlaceholderRun("video", row=0, start=3, stop=7))
    4
    """

    modality: str
    row: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def placeholder_runs(prompt: Prompt, placeholders: Mapping[str, int]) -> list[list[PlaceholderRun]]:
    """Per prompt row the runs of placeholder ids, in order; padding belongs to none.

    Two videos with no other token between them are one run.

    >>> ids = torch.tensor([[5, 9, 9, 6, 9]])
    >>> [len(run) for run in placeholder_runs(Prompt(ids, None, torch.ones_like(ids).bool()), {"video": 9})[0]]
    [2, 1]

    Args:
        prompt: the tokens of one prefill.
        placeholders: modality (``"video"``, ``"image"``) -> its placeholder id.
    """
    modality_of = {placeholder: modality for modality, placeholder in placeholders.items()}
    ids = prompt.input_ids.where(prompt.valid, prompt.input_ids.new_tensor(-1)).cpu()
    return [
        [
            PlaceholderRun(modality_of[found], row, start, stop)
            for found, start, stop in _runs(row_ids)
            if found in modality_of
        ]
        for row, row_ids in enumerate(ids)
    ]


def _runs(ids: Tensor) -> list[tuple[int, int, int]]:
    """``(id, start, stop)`` of each maximal run of equal ids."""
    edges = [0, *(ids.diff().nonzero().squeeze(1) + 1).tolist(), len(ids)]
    return [(int(ids[start]), start, stop) for start, stop in itertools.pairwise(edges) if start < stop]
