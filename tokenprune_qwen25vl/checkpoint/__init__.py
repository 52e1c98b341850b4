# SPDX-License-Identifier: Apache-2.0
"""The small trained model that ships with the package; see `README.md` beside it."""

from __future__ import annotations

from pathlib import Path


def shipped_checkpoint() -> Path:
    """Folder of the shipped checkpoint, for `from_pretrained` and `AutoProcessor`.

    >>> (shipped_checkpoint() / "model.safetensors").is_file()
    True

    Raises:
        FileNotFoundError: the package was installed without its weights.
    """
    folder = Path(__file__).resolve().parent
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(f"no shipped weights in {folder}: the package is incomplete, install it again")
    return folder
