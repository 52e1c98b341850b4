# SPDX-License-Identifier: Apache-2.0
"""A law: one statement, and the check that generates examples and fails where the statement does not hold."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException

from tokenprune.errors import TokenPruneError

S = TypeVar("S")
Check = Callable[[S, st.DataObject], None]


class LawBrokenError(TokenPruneError, AssertionError):
    """A law of the contract does not hold; ``law`` is its name, the message shows where."""

    def __init__(self, law: str, detail: str) -> None:
        super().__init__(f"{law}: {detail}")
        self.law = law


def require(condition: bool, detail: str) -> None:
    """Say, inside a check, what must hold; the law that is being checked adds its name.

    >>> require(3 == 4, "3 tokens, not 4")
    Traceback (most recent call last):
    AssertionError: 3 tokens, not 4
    """
    if not condition:
        raise AssertionError(detail)


@dataclass(frozen=True)
class Law(Generic[S]):
    """One law, for subjects of one kind (mergers, scorers, ...).

    >>> from tokenprune.testing import OPERATOR_LAWS
    >>> OPERATOR_LAWS[0].test(tp.STMerge(), max_examples=2)
    True

    Args:
        name: what a broken law is called.
        statement: the law in one sentence.
        number: its number in the list of laws in the documentation.
        check: draws an example and raises where the law does not hold.
        applies: whether the law speaks about this subject.
    """

    name: str
    statement: str
    number: int
    check: Check[S]
    applies: Callable[[S], bool]

    def __str__(self) -> str:
        return self.name

    def test(self, subject: S, *, max_examples: int = 20) -> bool:
        """Check the law on up to ``max_examples`` examples, the same in every run.

        Returns:
            Whether the law applies to the subject at all.

        Raises:
            LawBrokenError: it does not hold; the example shown is a small one.
        """
        if not self.applies(subject):
            return False

        @settings(
            max_examples=max_examples,
            derandomize=True,
            database=None,
            deadline=None,
            report_multiple_bugs=False,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=tuple(HealthCheck),  # pyright: ignore[reportArgumentType]
        )
        @given(st.data())
        def run(data: st.DataObject) -> None:
            with naming(self.name):
                self.check(subject, data)

        run()
        return True


@contextmanager
def naming(law: str) -> Generator[None]:
    """Whatever goes wrong inside is this law's failure."""
    try:
        yield
    except (HypothesisException, LawBrokenError):
        raise
    except AssertionError as error:
        raise LawBrokenError(law, str(error)) from error
    except Exception as error:
        raise LawBrokenError(law, f"raised {type(error).__name__}: {error}") from error


def law(number: int, applies: Callable[[Any], bool] = lambda subject: True) -> Callable[[Check[S]], Law[S]]:
    """Make a law of a function: its name is the law's, the first line of its docstring the statement."""

    def decorate(check: Check[S]) -> Law[S]:
        statement = (check.__doc__ or "").strip().splitlines()[0]
        return Law(check.__name__.replace("_", "-"), statement, number, check, applies)

    return decorate


def check_all(laws: Sequence[Law[S]], subject: S, max_examples: int) -> list[str]:
    """Check every law that applies; the names of those."""
    return [each.name for each in laws if each.test(subject, max_examples=max_examples)]
