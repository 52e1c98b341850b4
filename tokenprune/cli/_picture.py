# SPDX-License-Identifier: Apache-2.0
"""Pictures that are the same for the same result."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenprune.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Nothing in the file tells when it was drawn.
_METADATA: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}


def save_picture(figure: Figure, path: Path, salt: str) -> None:
    """Write the figure, whole or not at all.

    Args:
        figure: drawn.
        path: ending in ``.png``, ``.svg`` or ``.pdf``.
        salt: names of parts in an SVG are made of it.
    """
    import matplotlib

    drawn = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": salt}):
        figure.savefig(drawn, format=path.suffix[1:], dpi=120, metadata=_METADATA[path.suffix])
    write_bytes(path, drawn.getvalue())
