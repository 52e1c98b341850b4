# SPDX-License-Identifier: Apache-2.0
"""Grids that the config tells: every frame is a square of so many tokens; positions count in one dimension."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tokenprune.adapter import Prompt, VisualSpan
from tokenprune.hf.families.grids import Placeholders, unreadable, whole_span
from tokenprune.hf.placeholders import PlaceholderRun, placeholder_runs

Side = Callable[[Any], int]
"""The model's config -> tokens along a side of a frame."""


@dataclass(frozen=True)
class Squares:
    """A video is one run of T squares, an image one of a single square; at its end may stand a few that are text.

    Args:
        video: side of a frame.
        image: side of an image; a run that is no such image (one in tiles, with ends of lines in it) is refused.
        tail: placeholders at the end of a run that belong to no grid (the newline of LLaVA-OneVision).
    """

    video: Side
    image: Side
    tail: int = 0

    def spans(self, prompt: Prompt, ids: Placeholders, config: Any) -> list[list[VisualSpan]]:
        sides = {"video": self.video(config), "image": self.image(config)}
        runs = placeholder_runs(prompt, ids)
        return [[self._span(run, sides[run.modality]) for run in row] for row in runs]

    def _span(self, run: PlaceholderRun, side: int) -> VisualSpan:
        frames, rest = divmod(len(run) - self.tail, side * side)
        tail = f" and {self.tail} more" if self.tail else ""
        if run.modality == "image" and (frames, rest) != (1, 0):
            advice = "an image in tiles (anyres) has a grid that the ids do not tell, and two images need text between"
            raise unreadable(run, f"are not one image of {side}x{side}{tail}", advice)
        if frames < 1 or rest:
            raise unreadable(run, f"are not frames of {side}x{side}{tail}")
        return whole_span([run], (frames, side, side), run.modality, self.tail)


@dataclass(frozen=True)
class SquareRuns:
    """Each frame of a video is a run, and so is an image: only the text between them tells.

    Runs of one square with ``shortest`` to ``longest`` ids between each and the next (``Frame2:``, a timestamp) are a
    video. Any other run is an image; one of k squares is an image in k tiles, shown as k frames. Ids alone cannot tell
    a video of one frame from an image, nor images with such a text between them from a video.

    Args:
        side: side of a frame.
        shortest: ids between two frames of a video, at least.
        longest: at most.
    """

    side: Side
    shortest: int
    longest: int

    def spans(self, prompt: Prompt, ids: Placeholders, config: Any) -> list[list[VisualSpan]]:
        side = self.side(config)
        found: list[list[VisualSpan]] = []
        for row in placeholder_runs(prompt, ids):
            groups = grouped(row, lambda last, run: len(last) == len(run) == side * side and self._between(last, run))
            found.append([_span(group, side) for group in groups])
        return found

    def _between(self, last: PlaceholderRun, run: PlaceholderRun) -> bool:
        return self.shortest <= run.start - last.stop <= self.longest


@dataclass(frozen=True)
class CountedRuns:
    """Frames are runs of equally many tokens, of native resolution: H and W are not to be read (VideoLLaMA 3).

    A video of T frames of n tokens is read as ``(T, 1, n)``: a frame is a strip. Positions count in one dimension, so
    nothing is lost but the picture.

    Args:
        longest: ids between two frames of a video, at most.
    """

    longest: int

    def spans(self, prompt: Prompt, ids: Placeholders, config: Any) -> list[list[VisualSpan]]:
        found: list[list[VisualSpan]] = []
        for row in placeholder_runs(prompt, ids):
            groups = grouped(row, self._goes_on)
            for group in groups:
                odd = next((run for run in group if len(run) != len(group[0])), None)
                if odd is not None:
                    wanted = f"are a frame of another size than the {len(group[0])} of the video's first"
                    raise unreadable(odd, wanted, "frames that the model has compressed cannot be pruned")
            found.append([whole_span(g, (len(g), 1, len(g[0])), g[0].modality) for g in groups])
        return found

    def _goes_on(self, last: PlaceholderRun, run: PlaceholderRun) -> bool:
        return last.modality == run.modality == "video" and run.start - last.stop <= self.longest


def grouped(
    row: Sequence[PlaceholderRun], goes_on: Callable[[PlaceholderRun, PlaceholderRun], bool]
) -> list[list[PlaceholderRun]]:
    """The runs of a row, those together of which each goes on with the one before."""
    groups: list[list[PlaceholderRun]] = []
    for run in row:
        if groups and goes_on(groups[-1][-1], run):
            groups[-1].append(run)
        else:
            groups.append([run])
    return groups


def _span(runs: Sequence[PlaceholderRun], side: int) -> VisualSpan:
    if len(runs) > 1:
        return whole_span(runs, (len(runs), side, side), "video")
    tiles, rest = divmod(len(runs[0]), side * side)
    if tiles < 1 or rest:
        raise unreadable(runs[0], f"are no squares of {side}x{side}")
    return whole_span(runs, (tiles, side, side), "image")
