# SPDX-License-Identifier: Apache-2.0
"""What PyramidDrop and V2Drop share: a schedule that drops more of a row's visual tokens at each of several layers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from tokenprune.budget import Budget, as_fraction
from tokenprune.errors import BudgetError, InvalidValueError
from tokenprune.layers import check_layer, resolve_layer
from tokenprune.messages import shown
from tokenprune.operator import Operator, check_modalities
from tokenprune.operators.inside import InsideLLM
from tokenprune.plan import TokenPlan
from tokenprune.tokens import VisualTokens


@dataclass(frozen=True)
class Progressive:
    """A schedule of stages at several layers; what each keeps is a share of what entered the first.

    Args:
        keep_ratio: fraction **kept** after the last stage; after stage i of S it is ``keep_ratio ** (i / S)``.
        keep: exact number kept after the last stage; the stages before come down to it by equal factors as well.
        ratios: fraction **kept** after each stage, of what entered the first, not rising; 0 keeps one token. Left
            out, and without a budget: the paper's.
        layers: the layer after which each stage acts, a 0-based int or a fraction of the depth; left out: the paper's.
        modalities: which visual tokens are ranked and may be cut: ``"video"``, ``"image"`` or both.

    Raises:
        BudgetError: more than one of ``keep_ratio``, ``keep`` and ``ratios``, or a value that is not allowed.
        InvalidValueError: ``layers`` are not as many as ``ratios``, or any argument is not allowed.
    """

    keep_ratio: float | None = None
    keep: int | None = None
    ratios: tuple[float, ...] | None = None
    layers: tuple[int | float, ...] | None = None
    modalities: tuple[str, ...] = ("video",)

    published: ClassVar[tuple[float, ...]]

    def __post_init__(self) -> None:
        has_budget = self.keep_ratio is not None or self.keep is not None
        if has_budget:
            Budget(self.keep_ratio, self.keep)
        if self.ratios is not None:
            object.__setattr__(self, "ratios", _check_ratios(self.ratios, has_budget))
        if self.layers is not None:
            if isinstance(self.layers, str) or not isinstance(self.layers, Sequence) or not self.layers:
                raise InvalidValueError(f"layers must be a non-empty tuple of layers, got {shown(self.layers)}")
            object.__setattr__(self, "layers", tuple(check_layer("layers", layer) for layer in self.layers))
        if self.layers is not None and not has_budget and len(self.layers) != len(self._ratios):
            raise InvalidValueError(f"{len(self.layers)} layers cannot have {len(self._ratios)} ratios")
        object.__setattr__(self, "modalities", check_modalities(self.modalities))

    @property
    def _ratios(self) -> tuple[float, ...]:
        return self.published if self.ratios is None else self.ratios

    @property
    def budget(self) -> Budget:
        """What is left in the end, of what entered."""
        if self.keep_ratio is not None or self.keep is not None:
            return Budget(self.keep_ratio, self.keep)
        last = self._ratios[-1]
        return Budget(last) if last else Budget(keep=1)

    def operators(self, depth: int) -> Sequence[Operator]:
        """Its stages in a decoder of ``depth`` layers."""
        has_budget = self.keep_ratio is not None or self.keep is not None
        count = len(self.published if self.layers is None else self.layers) if has_budget else len(self._ratios)
        layers = self._layers(depth, count) if self.layers is None else self.layers
        if not has_budget:
            shares = [(ratio, None) if ratio else (None, 1) for ratio in self._ratios]
            return [self._stage(layer, *share, 1.0) for layer, share in zip(layers, shares)]
        return [self._stage(layer, self.keep_ratio, self.keep, (i + 1) / count) for i, layer in enumerate(layers)]

    def _layers(self, depth: int, count: int) -> Sequence[int]:
        """The paper's layers, for so many stages."""
        raise NotImplementedError

    def _stage(self, layer: int | float, keep_ratio: float | None, keep: int | None, part: float) -> Operator:
        """The stage that is ``part`` of the way down."""
        raise NotImplementedError


@dataclass(frozen=True)
class PartOfTheWay:
    """The budget of a stage of a schedule: from all tokens to the last stage's by equal factors.

    Args:
        last: what the last stage leaves.
        part: how much of the way this stage goes, in (0, 1].
    """

    last: Budget
    part: float

    def __call__(self, total: int) -> int:
        """The same as :meth:`count`."""
        return self.count(total)

    def count(self, total: int) -> int:
        """Tokens kept of ``total``, at least as many as the last stage leaves."""
        last = self.last.count(total)
        if self.part == 1.0 or last == total:
            return last
        return max(last, math.ceil(total * (last / total) ** self.part - 1e-9))  # 1000 ** (1 / 3) is 9.99...98


@dataclass(frozen=True)
class ProgressiveStage(InsideLLM):
    """One stage; alone it is an operator as any other.

    Args:
        layer: as in any operator inside the LLM.
        keep_ratio: what the last stage keeps of the tokens that entered the first.
        keep: the same as a number.
        modalities: which visual tokens are ranked.
        part: how much of the way down to that this stage goes, in (0, 1].
    """

    part: float = 1.0

    @property
    def budget(self) -> PartOfTheWay:  # type: ignore[override]
        """How many of what entered the schedule stay."""
        return PartOfTheWay(Budget(self.keep_ratio, self.keep), self.part)

    def of_entered(self, entered: int) -> ProgressiveStage:
        """The stage that leaves what its share of ``entered`` tokens comes to."""
        return replace(self, keep_ratio=None, keep=self.budget(entered), part=1.0)

    def decide(self, tokens: VisualTokens, count: int) -> TokenPlan:
        """The pruning that leaves ``count`` tokens."""
        raise NotImplementedError


def at_fractions(fractions: Sequence[float], depth: int, count: int, least: int = 0) -> list[int]:
    """The layers at these fractions of the depth, rounded down, but rising and not below ``least``.

    Raises:
        InvalidValueError: they are not ``count``.
    """
    if count != len(fractions):
        raise InvalidValueError(f"{count} ratios need as many layers")
    layers: list[int] = []
    for fraction in fractions:
        layers.append(max(least if not layers else layers[-1] + 1, resolve_layer(fraction, depth)))
    return layers


def _check_ratios(ratios: object, has_budget: bool) -> tuple[float, ...]:
    if has_budget:
        raise BudgetError("give at most one of keep_ratio, keep and ratios")
    if isinstance(ratios, str) or not isinstance(ratios, Sequence) or not ratios:
        raise BudgetError(f"ratios must be a non-empty tuple of fractions kept, got {shown(ratios)}")
    try:
        exact = [as_fraction("ratios", ratio, low_open=False) for ratio in ratios]
    except InvalidValueError as error:
        raise BudgetError(str(error)) from None
    if any(later > earlier for earlier, later in itertools.pairwise(exact)):
        raise BudgetError(f"ratios are of what entered the first stage, so they must not rise, got {shown(ratios)}")
    return tuple(ratios)
