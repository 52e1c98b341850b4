# SPDX-License-Identifier: Apache-2.0
"""Decoded frames of one run after the other, with seeks between those that lie far apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from tokenprune.hf.frontend.video.runs import Run
from tokenprune.hf.frontend.video.source import packets, pyav
from tokenprune.hf.frontend.video.timeline import Timeline

_WORTH_A_SEEK = 48
"""So many packets are read and left aside sooner than another place is looked for."""


class DecodeFaultError(Exception):
    """The decoder refused a packet; with several threads good frames are lost with it."""


class SeekFaultError(Exception):
    """The file's index leads elsewhere."""


@dataclass(frozen=True)
class Manner:
    """How a file is read: with all cores and by jumping where that works, else packet by packet."""

    threads: bool = True
    seeks: bool = True


@dataclass(eq=False)
class Reader:
    """Runs of an opened file, to be read in their order.

    Args:
        container, stream: as :func:`tokenprune.hf.frontend.video.source.opened` gives them.
        timeline: of the same file.
        manner: in which refused packets are stepped over only without threads.
    """

    container: Any
    stream: Any
    timeline: Timeline
    manner: Manner
    _source: Iterator[Any] = field(init=False)
    _next: int = field(default=0, init=False)  # place of the packet that comes next, as far as is known

    def __post_init__(self) -> None:
        self.stream.thread_type = "AUTO" if self.manner.threads else "NONE"
        self._source = packets(self.container, self.stream)

    def frames(self, run: Run) -> Iterator[Any]:
        """What comes out of the decoder, in the order of presentation.

        Raises:
            DecodeFaultError: a packet was refused, with threads.
            SeekFaultError: a jump ended elsewhere.
        """
        timed = self.timeline.timed
        if timed and self.manner.seeks and run.first > self._next + _WORTH_A_SEEK:
            self._seek(run)
        needed = {self.timeline.order[frame] for frame in run.wanted}
        while self._next <= run.last:
            packet = next(self._source, None)
            if packet is None:
                break
            if not packet.size:
                continue
            place = self.timeline.place_at.get(packet.pts, self._next) if timed else self._next
            self._next = place + 1
            if run.first <= place <= run.last:
                # Frames that no other frame is made from cost as much as the others, and are only for themselves.
                self.stream.codec_context.skip_frame = "NONREF" if timed and place not in needed else "DEFAULT"
                yield from self._decoded(packet)
        yield from self._decoded(None)
        self.stream.codec_context.flush_buffers()

    def _seek(self, run: Run) -> None:
        av = pyav()
        try:
            self.container.seek(self.timeline.packets[run.first].time, stream=self.stream)
        except av.error.FFmpegError as error:
            raise SeekFaultError from error
        source = packets(self.container, self.stream)
        first = next(source, None)
        place = None if first is None else self.timeline.place_at.get(first.pts)
        if place is None or place > run.first:
            raise SeekFaultError
        self._next, self._source = place, chain([first], source)

    def _decoded(self, packet: Any) -> list[Any]:
        av = pyav()
        try:
            return list(self.stream.decode(packet))
        except av.error.FFmpegError as error:
            if self.manner.threads:
                raise DecodeFaultError from error
            return []
