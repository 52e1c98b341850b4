# SPDX-License-Identifier: Apache-2.0
"""Figures that several runs gave, and running what is to be compared in turn."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from tokenprune.errors import InvalidValueError

Sample = Mapping[str, float]
"""What one run measured, by name."""

Progress = Callable[[int, int], None]
"""Called with (runs done, runs in all)."""


# `torch.utils.benchmark.Measurement` holds the seconds of one statement. These are bytes, rates and ratios too, and run
# by run, so that two of them can be paired.
@dataclass(frozen=True)
class Figure:
    """One quantity as several runs measured it, in the order of the runs.

    Raises:
        InvalidValueError: no values.
    """

    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise InvalidValueError("a figure needs at least one value")

    @property
    def median(self) -> float:
        """The middle of the values."""
        return median(self.values)

    def over(self, other: Figure) -> Figure:
        """This over ``other``, run by run: what drifts between the rounds cancels out."""
        if len(self.values) != len(other.values):
            raise InvalidValueError(f"figures of {len(self.values)} and {len(other.values)} runs cannot be paired")
        return Figure(tuple(mine / its for mine, its in zip(self.values, other.values)))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: median, smallest, largest, and every run."""
        return {
            "median": self.median,
            "min": min(self.values),
            "max": max(self.values),
            "runs": list(self.values),
        }


@dataclass(frozen=True)
class Interleaved:
    """What :func:`interleave` measured.

    Args:
        figures: subject -> quantity -> figure of all rounds.
        failed: subjects that ran out of memory, with the message; they have no figures.
    """

    figures: Mapping[str, Mapping[str, Figure]]
    failed: Mapping[str, str]


def interleave(
    subjects: Mapping[str, Callable[[], Sample]], rounds: int, warmup: int, progress: Progress | None = None
) -> Interleaved:
    """Run every subject once a round, so that a machine that drifts drifts for all of them alike.

    Each round begins with another subject, so that none always runs on what the same one left behind. A subject that
    runs out of memory is left out from then on; any other error is raised.

    Args:
        subjects: name -> one run, which returns what it measured; the same quantities every time.
        rounds: counted rounds, at least 1.
        warmup: rounds before them that are not counted.
        progress: told after each run.
    """
    if rounds < 1 or warmup < 0:
        raise InvalidValueError(f"rounds must be at least 1 and warmup at least 0, got {rounds} and {warmup}")
    names = list(subjects)
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    failed: dict[str, str] = {}
    total, done = (rounds + warmup) * len(names), 0
    for turn in range(rounds + warmup):
        start = turn % len(names) if names else 0
        for name in names[start:] + names[:start]:
            if name not in failed:
                try:
                    sample = subjects[name]()
                    if turn >= warmup:
                        samples[name].append(sample)
                except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
                    if not _is_out_of_memory(error):
                        raise
                    failed[name] = "out of memory: " + str(error).split(". ")[0]
                if name in failed:  # only now has the error let go of what its frames held
                    _forget()
            done += 1
            if progress is not None:
                progress(done, total)
    return Interleaved({name: _figures(samples[name]) for name in names if name not in failed}, failed)


def _figures(samples: Sequence[Sample]) -> dict[str, Figure]:
    return {key: Figure(tuple(sample[key] for sample in samples)) for key in samples[0]}


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def _forget() -> None:
    """Give back what a failed run still holds, so that the next one does not fail for it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
