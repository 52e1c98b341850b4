# SPDX-License-Identifier: Apache-2.0
"""What the command line asks of a benchmark, and what every benchmark answers: shares with their intervals, rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tokenprune.bench.paired import Paired
from tokenprune.errors import InvalidValueError
from tokenprune.messages import shown
from tokenprune.pipeline import Pipeline

FORMAT = "tokenprune.benchmark"
VERSION = 1
Z_95 = 1.959963984540054
"""Standard deviations of a normal distribution that hold 95 % of it around the mean."""

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""


@dataclass(frozen=True)
class Share:
    """``count`` of ``total``, with its 95 % Wilson score interval (E. B. Wilson, 1927).

    >>> Share(8, 10).value, [round(end, 2) for end in Share(8, 10).interval]
    (0.8, [0.49, 0.94])

    Raises:
        InvalidValueError: no ``0 <= count <= total``, or a total of 0.
    """

    count: int
    total: int

    def __post_init__(self) -> None:
        if self.total < 1 or not 0 <= self.count <= self.total:
            raise InvalidValueError(f"a share needs 0 <= count <= total and a total above 0, got {self}")

    @property
    def value(self) -> float:
        """The share itself, in [0, 1]."""
        return self.count / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end: true shares from which this count is no surprise at the 5 % level."""
        z2 = Z_95 * Z_95
        middle = (self.count + z2 / 2) / (self.total + z2)
        spread = self.count * (self.total - self.count) / self.total + z2 / 4
        half = Z_95 * math.sqrt(spread) / (self.total + z2)
        # The ends are exactly 0 and 1 where nothing or all was counted, whatever rounding says.
        return (max(0.0, middle - half) if self.count else 0.0, middle + half if self.count < self.total else 1.0)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        low, high = self.interval
        return {"count": self.count, "total": self.total, "value": self.value, "low": low, "high": high}


@dataclass(frozen=True)
class Row:
    """How one pipeline did on all questions.

    Args:
        name: unique in its result.
        series: rows of one series are one line in a plot of accuracy over budget.
        accuracy: right answers: the right word, and nothing after it ("strict").
        word: answers that begin with the right word, whether or not they end there.
        kinds: right answers of each kind of question that was asked.
        kinds_word: likewise, of those that begin with the right word.
        agreement: answers equal to the plain model's.
        budget: mean over the questions of the visual tokens seen, averaged over layers, as a fraction of all.
        retained: mean over the questions of the visual tokens left at the end, as a fraction of all.
        seconds: time for all its answers, without what is shared between the rows.
        pipeline: description of its pipeline; None where it depends on the question.
        outcomes: one character a question, in the order they were asked: 2 right, 1 only the word, 0 wrong.
        paired: name of the row or series compared with -> ``"word"`` and ``"strict"`` -> the test.
        nominal: the budget that it was made for, where it is one of several at which a method is measured.
        notes: what else tells this row from others, JSON-ready.
    """

    name: str
    series: str
    accuracy: Share
    word: Share
    kinds: Mapping[str, Share]
    kinds_word: Mapping[str, Share]
    agreement: Share
    budget: float
    retained: float
    seconds: float
    pipeline: Mapping[str, Any] | None
    outcomes: str = ""
    paired: Mapping[str, Mapping[str, Paired]] = field(default_factory=dict[str, Mapping[str, Paired]])
    nominal: float | None = None
    notes: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "name": self.name,
            "series": self.series,
            "accuracy": self.accuracy.to_dict(),
            "word": self.word.to_dict(),
            "kinds": {kind: share.to_dict() for kind, share in self.kinds.items()},
            "kinds_word": {kind: share.to_dict() for kind, share in self.kinds_word.items()},
            "agreement": self.agreement.to_dict(),
            "layer_averaged_retained": self.budget,
            "visual_retained": self.retained,
            "seconds": self.seconds,
            "pipeline": self.pipeline,
            "outcomes": self.outcomes,
            "paired": {
                other: {count: test.to_dict() for count, test in tests.items()} for other, tests in self.paired.items()
            },
            "nominal_budget": self.nominal,
            "notes": dict(self.notes),
        }


@dataclass(frozen=True)
class BenchmarkResult:
    """What a benchmark measured.

    Args:
        benchmark: its name.
        setting: what was run on what: model, questions, seeds, JSON-ready.
        rows: the plain model first.
        unreachable: rows that were asked for and cannot be, with the reason.
        versions: of the libraries and of the benchmark itself.
    """

    benchmark: str
    setting: Mapping[str, Any]
    rows: Sequence[Row]
    unreachable: Mapping[str, str]
    versions: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "benchmark": self.benchmark,
            "setting": dict(self.setting),
            "versions": dict(self.versions),
            "rows": [row.to_dict() for row in self.rows],
            "unreachable": dict(self.unreachable),
        }


@dataclass(frozen=True)
class MethodGrid:
    """Methods, each at each budget.

    Args:
        names: class names; None: every one that can be given a budget.
        budgets: fractions of the visual tokens that are kept, averaged over the layers.
        masses: None without attention mass, ``"sizes"`` with it, one after the other.
    """

    names: tuple[str, ...] | None = None
    budgets: tuple[float, ...] = (0.25, 0.15, 0.1, 0.05)
    masses: tuple[str | None, ...] = (None, "sizes")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        names = None if self.names is None else list(self.names)
        return {"names": names, "budgets": list(self.budgets), "masses": list(self.masses)}


@dataclass(frozen=True)
class BenchmarkRequest:
    """What is to be measured.

    >>> BenchmarkRequest({"default": tp.preset("default")}, questions=40).seed
    0

    Args:
        pipelines: name -> pipeline.
        suite: a list of rows that the benchmark knows by name, instead of, or besides, ``pipelines``.
        questions: how many to ask, at least 1.
        seed: which questions, at least 0.
        blind: also measure the plain model with nothing to see.
        model: path or id; None is the small model that ships with the adapter.
        device: None is the adapter's choice, as for the next two.
        dtype: name of a dtype.
        attn: attention implementation.
        matched: whether random and uniform selection at its budget are measured beside each pipeline.
        methods: also measure these.
        masses: how pipelines are measured: None without attention mass, ``"sizes"`` with it, one after the other;
            empty: each as it is.
        against: rows, or series at the same budget, with which every row is compared question by question.

    Raises:
        InvalidValueError: ``questions`` or ``seed`` is out of range.
    """

    pipelines: Mapping[str, Pipeline] = field(default_factory=dict[str, Pipeline])
    suite: str | None = None
    questions: int = 500
    seed: int = 0
    blind: bool = False
    model: str | None = None
    device: str | None = None
    dtype: str | None = None
    attn: str | None = None
    matched: bool = True
    methods: MethodGrid | None = None
    masses: tuple[str | None, ...] = ()
    against: tuple[str, ...] = ("plain",)

    def __post_init__(self) -> None:
        for name, value, least in (("questions", self.questions, 1), ("seed", self.seed, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InvalidValueError(f"{name} must be a whole number of at least {least}, got {shown(value)}")


class Journal(Protocol):
    """What a benchmark has measured so far, piece by piece, so that an interrupted run goes on where it was."""

    @property
    def entries(self) -> Sequence[Mapping[str, Any]]:
        """The pieces that are done; what is in them is the benchmark's."""
        ...

    def require(self, name: str, value: Any) -> None:
        """An input that all pieces have in common.

        Raises:
            TokenPruneError: pieces that are done had another.
        """
        ...

    def add(self, entry: dict[str, Any]) -> None:
        """One piece more, JSON-ready; it is safe when this returns."""
        ...


class Benchmark(Protocol):
    """Questions with known answers that an adapter's models can be asked, plain and pruned."""

    @property
    def suites(self) -> Sequence[str]:
        """Names that :attr:`BenchmarkRequest.suite` may have."""
        ...

    def run(self, request: BenchmarkRequest, progress: Progress, journal: Journal | None = None) -> BenchmarkResult:
        """Ask everything that is not in the journal yet.

        The same request, model and versions give the same result but for its seconds.

        Raises:
            TokenPruneError: the model cannot be loaded, a pipeline does not fit it, or the suite is unknown.
        """
        ...
