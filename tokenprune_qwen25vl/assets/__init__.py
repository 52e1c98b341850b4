# SPDX-License-Identifier: Apache-2.0
"""Files that the commands use."""

from __future__ import annotations

from pathlib import Path

DEMO_SEED = 2_000_017_998
"""The clip `demo` is `write_mp4(sample(DEMO_SEED), ...)` of `tokenprune.bench.world`."""


def demo_clip() -> Path:
    """The clip named `demo`: 16 frames of the small world as an .mp4 file.

    >>> demo_clip().name
    'demo.mp4'

    Raises:
        FileNotFoundError: the package was installed without it.
    """
    path = Path(__file__).resolve().parent / "demo.mp4"
    if not path.is_file():
        raise FileNotFoundError(f"no demo clip at {path}: the package is incomplete, install it again")
    return path
