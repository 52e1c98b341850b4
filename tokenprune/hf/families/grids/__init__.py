# SPDX-License-Identifier: Apache-2.0
"""Grid rules: how the videos and images of a prompt are read from its ids, its positions and the model's config alone.

Pixels and grids are not to be had: ``generate`` encodes first, and hands on neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch

from tokenprune.adapter import Prompt, VisualSpan
from tokenprune.errors import UnsupportedModeError
from tokenprune.hf.placeholders import PlaceholderRun

Placeholders = Mapping[str, int]
"""Modality (``"video"``, ``"image"``) -> its placeholder id."""


class GridRule(Protocol):
    """How a family's prompts hold videos and images."""

    def spans(self, prompt: Prompt, ids: Placeholders, config: Any) -> list[list[VisualSpan]]:
        """Per row its videos and images, in order.

        Args:
            prompt: ids and positions of one prefill.
            ids: placeholder ids.
            config: the model's.

        Raises:
            UnsupportedModeError: the layout cannot be read with certainty.
        """
        ...


def whole_span(runs: Sequence[PlaceholderRun], grid: tuple[int, int, int], modality: str, tail: int = 0) -> VisualSpan:
    """One video or image that stands on these runs, but for ``tail`` placeholders at the end of each."""
    columns = [torch.arange(run.start, run.stop - tail, device="cpu") for run in runs]
    return VisualSpan(modality, grid, torch.cat(columns))


def unreadable(run: PlaceholderRun, wanted: str, advice: str = "put text between two videos") -> UnsupportedModeError:
    """The error for a run of placeholders that is not what the family writes."""
    return UnsupportedModeError(
        f"the {len(run)} {run.modality} tokens at column {run.start} of row {run.row} {wanted}; {advice}"
    )
