# SPDX-License-Identifier: Apache-2.0
"""The options that choose several pipelines to compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokenprune.cli._output import wrong_usage
from tokenprune.cli._preset_names import PRESET_HELP, complete_preset

if TYPE_CHECKING:
    from tokenprune.pipeline import Pipeline

PresetsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--preset",
        help=f"{PRESET_HELP}; may be repeated.",
        metavar="NAME",
        show_default=False,
        autocompletion=complete_preset,
    ),
]
FilesOption = Annotated[
    list[Path] | None,
    typer.Option("--pipeline", help="A pipeline file (JSON); may be repeated.", metavar="FILE", show_default=False),
]


@dataclass(frozen=True)
class PipelineChoices:
    """What the options said."""

    presets: PresetsOption = None
    files: FilesOption = None

    @property
    def named(self) -> bool:
        """Whether anything is chosen."""
        return bool(self.presets or self.files)

    def resolve(self, default: Sequence[str] = ()) -> dict[str, Pipeline]:
        """Presets by their names, files by their paths.

        Args:
            default: presets where nothing is chosen.

        Raises:
            UsageError: an unknown preset.
            PipelineFileError: a file that cannot be read as a pipeline.
        """
        from tokenprune.named import preset
        from tokenprune.pipeline import Pipeline

        with wrong_usage():
            chosen = {name: preset(name) for name in (self.presets or [] if self.named else default)}
        return chosen | {str(file): Pipeline.load(file) for file in self.files or []}
