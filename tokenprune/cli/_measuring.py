# SPDX-License-Identifier: Apache-2.0
"""What measurements share: how often everything runs, and the adapter that measures the model that was given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from tokenprune.cli import _runner
from tokenprune.errors import InvalidValueError, NoAdapterError
from tokenprune.messages import not_one_of

if TYPE_CHECKING:
    from tokenprune.bench.speed.request import SpeedBench
    from tokenprune.loading import Plugin

HOOK = "tokenprune_speed"


@dataclass(frozen=True)
class Rounds:
    """How often everything runs."""

    rounds: Annotated[int, typer.Option(help="Counted runs of everything, in turn.", metavar="N")] = 5
    warmup: Annotated[int, typer.Option(help="Runs before them that are not counted.", metavar="N")] = 1


def find_speed(shape: str | None, model: str | None, plugins: Iterable[Plugin] | None = None) -> SpeedBench:
    """The first adapter, in the order of their names, that measures this shape or this model.

    Args:
        shape: one of an adapter's model shapes.
        model: a checkpoint, which the runner of the same plugin, where it has one, must take. Neither: any adapter.
        plugins: default: those of the group ``tokenprune.bench``.

    Raises:
        InvalidValueError: adapters measure, but none has this shape.
        NoAdapterError: none measures this model, or at all; the message says why.
        ModelLoadError: there is no such model.
    """
    from tokenprune.bench.offers import offers

    reasons: list[str] = []
    shapes: list[str] = []
    for plugin, measuring in offers(HOOK, reasons, plugins):
        if shape is not None:
            if shape in measuring.shapes:
                return measuring
            shapes += measuring.shapes
            continue
        runner = None if model is None else plugin.call(_runner.HOOK)
        reason = None if runner is None else runner.declines(model)
        if reason is None:
            return measuring
        reasons.append(f"{plugin.info.name} {reason}")
    if shapes:
        raise InvalidValueError(not_one_of("shape", dict.fromkeys(shapes), shape))
    raise NoAdapterError(
        f"no adapter measures {shape or model or 'speed'}: {'; '.join(reasons) or 'none is installed'}"
    )
