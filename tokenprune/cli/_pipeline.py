# SPDX-License-Identifier: Apache-2.0
"""The options that choose a pipeline, the same in every command: a preset, a file, a method, or one's own values."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokenprune.cli._layer import LayerOption, parse_layer
from tokenprune.cli._method import MethodOption, SetOption, label_of, operator_of, settings_of, with_options
from tokenprune.cli._output import UsageError, wrong_usage
from tokenprune.cli._preset_names import PRESET_HELP, complete_preset

if TYPE_CHECKING:
    from tokenprune.pipeline import Pipeline

DEFAULT = "recommended"
"""As :data:`tokenprune.named.RECOMMENDED`, without importing torch."""
CUSTOM = "custom"

PresetOption = Annotated[
    str | None,
    typer.Option(
        help=f"{PRESET_HELP}; {DEFAULT} where nothing else is chosen.",
        metavar="NAME",
        show_default=False,
        autocompletion=complete_preset,
    ),
]
PipelineOption = Annotated[
    Path | None, typer.Option("--pipeline", help="A pipeline file (JSON).", metavar="FILE", show_default=False)
]
TauOption = Annotated[
    float | None, typer.Option(help="Stage 1: similarity above which a place counts as static.", show_default=False)
]
ClusterOption = Annotated[
    float | None, typer.Option(help="Stage 1: fraction that clustering in space keeps.", show_default=False)
]
SegmentOption = Annotated[
    float | None, typer.Option(help="Stage 1: temporal segments as a fraction of the frames.", show_default=False)
]
KeepOption = Annotated[
    float | None,
    typer.Option(help="Fraction of the visual tokens that is kept, by --method or by stage 2.", show_default=False),
]


@dataclass(frozen=True)
class PipelineChoice:
    """What the options said.

    Without a method any of the last five means a custom pipeline: the preset ``default`` with these values.
    """

    preset: PresetOption = None
    pipeline: PipelineOption = None
    method: MethodOption = None
    settings: SetOption = None
    tau: TauOption = None
    cluster_ratio: ClusterOption = None
    segment_ratio: SegmentOption = None
    keep_ratio: KeepOption = None
    layer: LayerOption = None

    def resolve(self) -> tuple[str, Pipeline]:
        """The pipeline, and its name: a preset's, ``custom``, the file's, or the method as it is written in Python.

        Raises:
            UsageError: options that exclude each other, an unknown preset or method, or a value that is not allowed.
            PipelineFileError: the file cannot be read as a pipeline.
        """
        from tokenprune.named import preset
        from tokenprune.pipeline import Pipeline

        stage_1 = (self.tau, self.cluster_ratio, self.segment_ratio)
        given = stage_1 if self.method is not None else (*stage_1, self.keep_ratio, self.layer)
        custom = any(value is not None for value in given) or self.preset == CUSTOM
        named = self.preset not in (None, CUSTOM)
        if named + custom + (self.pipeline is not None) + (self.method is not None) > 1:
            raise UsageError(
                "choose one of --preset, --pipeline, --method (with --keep-ratio --layer --set) and custom values "
                "(--tau --cluster-ratio --segment-ratio --keep-ratio --layer)"
            )
        if self.settings and self.method is None:
            raise UsageError("--set is for --method")
        if self.pipeline is not None:
            return str(self.pipeline), Pipeline.load(self.pipeline)
        with wrong_usage():
            if self.method is not None:
                return self._of_method(self.method)
            if custom:
                return CUSTOM, self._custom()
            name = DEFAULT if self.preset is None else self.preset
            return name, preset(name)

    def _of_method(self, method: str) -> tuple[str, Pipeline]:
        from tokenprune.pipeline import Pipeline

        layer = None if self.layer is None else parse_layer(self.layer)
        settings = with_options({"keep_ratio": self.keep_ratio, "layer": layer}, settings_of(self.settings or []))
        return label_of(method, settings), Pipeline([operator_of(method, settings)])

    def _custom(self) -> Pipeline:
        from tokenprune.named import LAYER
        from tokenprune.operators.attn_prune import AttnPrune
        from tokenprune.operators.st_merge import STMerge
        from tokenprune.pipeline import Pipeline

        return Pipeline(
            [
                STMerge(
                    tau=_or(self.tau, 0.8),
                    cluster_ratio=_or(self.cluster_ratio, 0.5),
                    temporal_segment_ratio=_or(self.segment_ratio, 0.25),
                ),
                AttnPrune(
                    layer=LAYER if self.layer is None else parse_layer(self.layer),
                    keep_ratio=_or(self.keep_ratio, 0.4),
                ),
            ]
        )


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
