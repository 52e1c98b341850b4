# SPDX-License-Identifier: Apache-2.0
"""Results that grow entry by entry, so that an interrupted command goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenprune.errors import ResultFileError
from tokenprune.files import write_text
from tokenprune.strict_json import read_json

if TYPE_CHECKING:
    from torch import nn

VERSION = 1
_VALUES_PER_WEIGHT = 64


@dataclass(frozen=True)
class Results:
    """A file of results; it is written whole after every entry.

    Args:
        path: of the file.
        data: ``format``, ``version``, ``inputs`` and ``entries``, and what else the command puts there.
    """

    path: Path
    data: dict[str, Any]

    @classmethod
    def open(cls, path: Path, kind: str, inputs: Mapping[str, Any]) -> Results:
        """The results in ``path``, to be gone on with, or none yet.

        Raises:
            ResultFileError: the file holds something else, or results of other inputs; it stays as it is.
        """
        if not path.exists():
            return cls(path, {"format": kind, "version": VERSION, "inputs": dict(inputs), "entries": []})
        try:
            data: Any = read_json(path)
        except (OSError, ValueError) as error:
            raise ResultFileError(f"cannot read {path} as results, give --out another file: {error}") from error
        if not _is_results(data, kind):
            raise ResultFileError(f"{path} holds no {kind} results of version {VERSION}; give --out another file")
        results = cls(path, data)
        for name, value in inputs.items():
            results.inputs.setdefault(name, None)
            results.require(name, value)
        return results

    def require(self, name: str, value: Any) -> None:
        """An input that results have in common; the first to name it decides.

        Raises:
            ResultFileError: the file's is another.
        """
        before = self.inputs.setdefault(name, value)
        if before != value:
            raise ResultFileError(
                f"{self.path} holds results of other inputs: {name} was {_short(before)}, now it is {_short(value)}; "
                "give --out another file, or remove this one"
            )

    @property
    def inputs(self) -> dict[str, Any]:
        """What the results depend on."""
        return self.data["inputs"]

    @property
    def entries(self) -> list[dict[str, Any]]:
        """What is done."""
        return self.data["entries"]

    def add(self, entry: dict[str, Any]) -> None:
        """One entry more, in the file when this returns."""
        self.entries.append(entry)
        self.save()

    def save(self) -> None:
        """Write everything, whole or not at all."""
        write_text(self.path, json.dumps(self.data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def versions() -> dict[str, str]:
    """Of what results depend on."""
    import torch

    from tokenprune import __version__

    return {"tokenprune": __version__, "torch": str(torch.__version__)}


def file_sha256(path: str | Path) -> str:
    """Of a file's content: a file that was moved is still the same."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def weights_sha256(model: nn.Module) -> str:
    """Of names, shapes and evenly spread values of all weights: quick for any size, and other for other weights."""
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        flat = weight.detach().flatten()
        sample = flat[:: max(1, len(flat) // _VALUES_PER_WEIGHT)].float().cpu()
        digest.update(f"{name} {tuple(weight.shape)}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()


def _is_results(data: Any, kind: str) -> bool:
    if not isinstance(data, dict):
        return False
    known: dict[str, Any] = data
    if (known.get("format"), known.get("version")) != (kind, VERSION):
        return False
    entries = known.get("entries")
    return (
        isinstance(known.get("inputs"), dict)
        and isinstance(entries, list)
        and all(isinstance(entry, dict) for entry in entries)
    )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
