# SPDX-License-Identifier: Apache-2.0
"""When each frame of a file is shown: found by walking over its packets, which costs no decoding."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from tokenprune.errors import VideoError
from tokenprune.hf.frontend.video.extent import is_cut_off
from tokenprune.hf.frontend.video.sampling import DEFAULT_FPS, even
from tokenprune.hf.frontend.video.source import opened, packets

_UNREAD_BYTES = 1024
"""So many bytes that belong to no packet, and a pause beside them: a demuxer has skipped what it could not read."""


@dataclass(frozen=True)
class Packet:
    """One coded frame, in the order of decoding.

    Args:
        time: when it is shown, in ticks; None where the file does not say.
        ticks: how long; 0 where the file does not say.
        key: decoding can begin here.
        shown: False: needed for others only (before an edit begins, or a hidden reference).
        place: its first byte.
        size: bytes.
    """

    time: int | None
    ticks: int
    key: bool
    shown: bool
    place: int
    size: int


@dataclass(frozen=True)
class Timeline:
    """The presented frames of a file.

    Args:
        packets: every coded frame, in the order of decoding.
        order: for each presented frame its place among `packets`.
        starts: seconds from the first presented frame at which each is shown.
        duration: seconds after which the last one is over.
        rate: frames a second where they come evenly, else None.
        timed: every packet has a time of its own, by which a frame is known after decoding.
        cut_off, missing: as in :class:`tokenprune.hf.frontend.video.clip.Damage`.
    """

    packets: tuple[Packet, ...]
    order: tuple[int, ...]
    starts: tuple[Fraction, ...]
    duration: Fraction
    rate: Fraction | None
    timed: bool
    cut_off: bool
    missing: int

    @cached_property
    def frame_at(self) -> dict[int, int]:
        """Time in ticks -> presented frame; empty unless `timed`."""
        times = [self.packets[place].time for place in self.order] if self.timed else []
        return {time: frame for frame, time in enumerate(times) if time is not None}

    @cached_property
    def place_at(self) -> dict[int, int]:
        """Time in ticks -> place in the order of decoding; empty unless `timed`."""
        if not self.timed:
            return {}
        return {packet.time: place for place, packet in enumerate(self.packets) if packet.time is not None}


def read_timeline(path: Path) -> Timeline:
    """Walk over a file.

    Raises:
        VideoError: it holds no video, or no frame of one.
    """
    with opened(path) as (container, stream):
        facts = _Facts.of(container, stream)
        walked, empty, gap = _walk(container, stream)
    cut_off = is_cut_off(path)
    shown = [place for place, packet in enumerate(walked) if packet.shown]
    if not shown:
        said = "video file is cut off: it has" if cut_off else "video has"
        raise VideoError(f"{said} no frames: {path}")
    times = [packet.time for packet in walked if packet.time is not None]
    timed = len(times) == len(walked) and len(set(times)) == len(times)
    if timed:
        shown.sort(key=lambda place: walked[place].time or 0)
        starts, duration, rate = _timed(walked, shown, facts)
    else:
        rate = facts.rates[0] if facts.rates else Fraction(DEFAULT_FPS)
        starts, duration = tuple(frame / rate for frame in range(len(shown))), len(shown) / rate
    missing = round(gap * (facts.rates[0] if facts.rates else len(shown) / duration))
    if cut_off or facts.counted:
        missing = max(missing, facts.promised(len(shown), duration) - len(walked) - empty)
    return Timeline(tuple(walked), tuple(shown), starts, duration, rate, timed, cut_off, max(missing, 0))


@dataclass(frozen=True)
class _Facts:
    """What a container says about its video."""

    tick: Fraction
    rates: tuple[Fraction, ...]
    frames: int
    seconds: Fraction | None
    counted: bool

    @classmethod
    def of(cls, container: Any, stream: Any) -> _Facts:
        rates = [rate for rate in (stream.average_rate, getattr(stream, "guessed_rate", None)) if rate]
        seconds = None if stream.duration is None else stream.duration * stream.time_base
        tagged = stream.metadata.get("DURATION", "")
        if seconds is None and tagged.count(":") == 2:
            hours, minutes, rest = tagged.split(":")
            seconds = int(hours) * 3600 + int(minutes) * 60 + Fraction(rest.strip("\0 "))
        # An AVI lists its frames and nothing else; an MP4's list also holds what its edits leave out.
        return cls(stream.time_base, tuple(rates), int(stream.frames or 0), seconds, container.format.name == "avi")

    def promised(self, found: int, duration: Fraction) -> int:
        """Frames that should be there, as far as can be told from `found` that last `duration`."""
        if self.frames:
            return self.frames
        return round(self.seconds * found / duration) if self.seconds is not None else 0


def _walk(container: Any, stream: Any) -> tuple[list[Packet], int, Fraction]:
    """The stream's packets, how many more are empty, and the seconds between those where bytes were skipped."""
    # Only Matroska's demuxer skips faults in silence; for it the packets of all streams account for the bytes.
    accountable = "matroska" in container.format.name
    hidden = stream.codec_context.name in ("vp8", "libvpx")
    walked: list[Packet] = []
    empty, gap, end, unread, last = 0, 0, 0, False, None
    for packet in packets(container, None if accountable else stream):
        if not packet.size:  # an AVI repeats a frame so; one without a time is the end
            empty += packet.dts is not None
            continue
        place = int(packet.pos or 0)
        unread = unread or (accountable and end > 0 and place > end + _UNREAD_BYTES)
        end = max(end, place) + packet.size
        if packet.stream.index != stream.index:
            continue
        # A VP8 packet's first byte says whether its frame is shown.
        shown = not packet.is_discard and not (hidden and not bytes(packet)[0] & 0x10)
        walked.append(Packet(packet.pts, int(packet.duration or 0), packet.is_keyframe, shown, place, packet.size))
        if unread and packet.pts is not None and last is not None:
            gap += max(packet.pts - last, 0)
        unread = False
        if packet.pts is not None:
            last = packet.pts + int(packet.duration or 0)
    return walked, empty, gap * stream.time_base


def _timed(
    walked: list[Packet], shown: list[int], facts: _Facts
) -> tuple[tuple[Fraction, ...], Fraction, Fraction | None]:
    """Starts, duration, and the rate where every frame is within half a frame of its even place."""
    ticks = [walked[place].time or 0 for place in shown]
    steps = [after - before for before, after in pairwise(ticks)]
    usual = 1 / (facts.rates[0] if facts.rates else Fraction(DEFAULT_FPS)) / facts.tick
    last = Fraction(walked[shown[-1]].ticks or (Fraction(median(steps)) if steps else usual))
    starts = tuple((tick - ticks[0]) * facts.tick for tick in ticks)
    duration = starts[-1] + last * facts.tick
    for rate in (*facts.rates, len(shown) / duration):
        if even(starts, duration, rate):
            return starts, len(shown) / rate, rate
    return starts, duration, None
