# SPDX-License-Identifier: Apache-2.0
"""The pixels of chosen frames of a video file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tokenprune.hf.frontend.video.canvas import Canvas, Progress
from tokenprune.hf.frontend.video.fit import Fit
from tokenprune.hf.frontend.video.orient import Upright
from tokenprune.hf.frontend.video.reader import DecodeFaultError, Manner, Reader, SeekFaultError
from tokenprune.hf.frontend.video.runs import plan_runs
from tokenprune.hf.frontend.video.source import opened
from tokenprune.hf.frontend.video.timeline import Timeline


def decode(
    path: Path, timeline: Timeline, indices: Sequence[int], fit: Fit | None = None, progress: Progress | None = None
) -> Canvas:
    """The frames of these indices, as far as they decode; a file that resists is read again in a plainer manner."""
    manner = Manner()
    while True:
        canvas = Canvas(indices, fit, progress)
        try:
            _fill(path, timeline, canvas, manner)
            return canvas
        except DecodeFaultError:
            manner = replace(manner, threads=False)
        except SeekFaultError:
            manner = replace(manner, seeks=False)


def _fill(path: Path, timeline: Timeline, canvas: Canvas, manner: Manner) -> None:
    with opened(path) as (container, stream):
        upright = Upright(stream.sample_aspect_ratio)
        reader = Reader(container, stream, timeline, manner)
        for run in plan_runs(timeline, sorted(set(canvas.indices))):
            _fill_run(_numbered(reader.frames(run), timeline), run.wanted, canvas, upright)


def _numbered(decoded: Iterator[Any], timeline: Timeline) -> Iterator[tuple[int, Any]]:
    """(presented frame, decoded frame)."""
    for count, frame in enumerate(decoded):
        index = timeline.frame_at.get(frame.pts) if timeline.timed else count
        if index is not None:
            yield index, frame


def _fill_run(decoded: Iterator[tuple[int, Any]], wanted: Sequence[int], canvas: Canvas, upright: Upright) -> None:
    """Put the wanted frames; for one that does not come, the picture that a player still shows."""
    pending = list(wanted)
    last: Any = None
    for index, frame in decoded:
        while pending and pending[0] < index and last is not None:
            canvas.put(pending.pop(0), upright(last), stands_in=True)
        if index in pending:
            pending.remove(index)
            canvas.put(index, upright(frame), flawed=bool(frame.is_corrupt))
        last = frame
    for index in pending if last is not None else []:
        canvas.put(index, upright(last), stands_in=True)
