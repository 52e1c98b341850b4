# SPDX-License-Identifier: Apache-2.0
"""Who is inside a session: one thread at a time, and nobody once it is detached."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from types import FrameType

from tokenprune.errors import UnsupportedModeError


@dataclass(eq=False)
class Entrance:
    """The way into one session, for every forward and every ``generate``.

    Args:
        acts: whether the pipeline changes anything; an empty one only watches, and refuses nobody.
        asked: whether anything has been asked of the model since the session was attached.
    """

    acts: bool
    asked: bool = False
    _lock: threading.Condition = field(default_factory=threading.Condition)
    _owner: int | None = None
    _inside: list[FrameType | None] = field(default_factory=list[FrameType | None])
    _closed: bool = False

    def enter(self, forward: FrameType | None = None) -> int:
        """A forward or generate begins.

        Args:
            forward: the frame that runs the forward, which tells when an interrupt has ended it without a word; None
                where :meth:`leave` is sure to be called.

        Returns:
            How deep this thread is inside the session now, to be given to :meth:`leave`; 0 where it must go
            unobserved, because the empty pipeline only watches and another thread is inside, or nobody is to be.

        Raises:
            UnsupportedModeError: another thread is inside or the session was detached, and the pipeline acts.
        """
        self.asked = True
        with self._lock:
            if self._is_unobserved():
                return 0
            self._owner = threading.get_ident()
            self._inside.append(forward)
            return len(self._inside)

    def leave(self, depth: int) -> None:
        """What :meth:`enter` announced at this depth has ended, and whatever was interrupted further inside."""
        with self._lock:
            del self._inside[depth - 1 :]
            self._lock.notify_all()

    def close(self) -> None:
        """Wait until another thread that is inside has left, and let nobody in again.

        Raises:
            UnsupportedModeError: this thread itself is inside.
        """
        with self._lock:
            while self._is_inside():
                if self._owner == threading.get_ident():
                    raise UnsupportedModeError("a session cannot be detached in the middle of a call; do it afterwards")
                self._lock.wait(1.0)  # an interrupted forward does not say that it has ended
            self._closed = True

    @property
    def is_elsewhere(self) -> bool:
        """Whether another thread is inside the session."""
        with self._lock:
            return self._is_elsewhere()

    @property
    def is_unobserved(self) -> bool:
        """Whether this thread must go unobserved, as :meth:`enter` tells with 0.

        Raises:
            UnsupportedModeError: another thread is inside or the session was detached, and the pipeline acts.
        """
        with self._lock:
            return self._is_unobserved()

    def _is_unobserved(self) -> bool:
        if self._closed and self.acts:
            raise UnsupportedModeError(
                "the session was detached before this call began; call the model inside the `with` block (a thread: "
                "join it there), or take model.generate anew to run the plain model"
            )
        if self._is_elsewhere() and self.acts:
            raise UnsupportedModeError("two threads run in one session; give each thread its own model")
        return self._closed or self._is_elsewhere()

    def _is_elsewhere(self) -> bool:
        return self._is_inside() and self._owner != threading.get_ident()

    def _is_inside(self) -> bool:
        """Whether a call runs; what an interrupt has ended is forgotten."""
        if self._inside and self._inside[0] is not None and not _is_running(self._inside[0]):
            self._inside.clear()
        return bool(self._inside)


def _is_running(frame: FrameType) -> bool:
    try:
        frame.clear()  # refuses to touch one that runs, in whichever thread
    except RuntimeError:
        return True
    return False
