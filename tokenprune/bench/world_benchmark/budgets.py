# SPDX-License-Identifier: Apache-2.0
"""Counts that meet a layer-averaged budget exactly.

A *spend* is the number of visual tokens that all decoder layers of one prefill see together: with n0 tokens, depth L,
and n1 tokens in layers 0..N, n2 in the later ones, it is ``(N + 1) * n1 + (L - N - 1) * n2``; the layer-averaged
budget is the spend over ``L * n0``. Spends are whole numbers, so two methods either cost the same or they do not.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from tokenprune.operator import AFTER_PREFILL
from tokenprune.pipeline import Pipeline


@dataclass(frozen=True)
class Decoder:
    """What budgets are counted in.

    Args:
        tokens: visual tokens of the prompt before anything.
        depth: number of decoder layers.
    """

    tokens: int
    depth: int

    def spend(self, early: int, late: int, layer: int) -> int:
        """Tokens that all layers see, where layers 0..``layer`` see ``early`` tokens and the others ``late``."""
        return (layer + 1) * early + (self.depth - layer - 1) * late

    def budget(self, spend: int) -> Fraction:
        """The layer-averaged budget of a spend."""
        return Fraction(spend, self.depth * self.tokens)

    def spent_by(self, pipeline: Pipeline) -> int | None:
        """Tokens that all layers see of a prompt with one video, pruned; None where a budget names no number.

        >>> Decoder(tokens=100, depth=4).spent_by(tp.Pipeline([tp.FastV(layer=0, keep_ratio=0.5)]))
        250
        """
        left, seen, entered = self.tokens, [self.tokens] * self.depth, dict[int | None, int]()
        for stage in pipeline.stages(self.depth):
            after = 0 if stage.layer is None else stage.layer + 1
            now = stage.of_entered(entered.setdefault(stage.schedule, left)).leaves(left)
            if now is None:
                return None
            if stage.site != AFTER_PREFILL:
                left, seen[after:] = now, [now] * (self.depth - after)
        return sum(seen)

    def level(self, ratio: Fraction, layer: int) -> int:
        """The spend nearest to ``ratio`` that a merger alone meets, and a selector at ``layer``, if it can go so low.

        A merger alone spends a multiple of the depth. A selector alone adds a multiple of the layers after it to what
        the layers up to it cost. Of equally near spends the lower.
        """
        later = self.depth - layer - 1
        floor = self.spend(self.tokens, 0, layer)

        def fits(count: int) -> bool:
            rest = count * self.depth - floor
            return rest < later or rest % later == 0

        wanted = ratio * self.tokens
        counts = [count for count in range(1, self.tokens + 1) if later == 0 or fits(count)]
        return self.depth * min(counts, key=lambda count: (abs(count - wanted), count))

    def selector_count(self, spend: int, layer: int) -> int | None:
        """The most a selector alone may keep after ``layer`` to spend no more; None: the early layers cost too much."""
        later = self.depth - layer - 1
        if later == 0:
            return None
        count = (spend - self.spend(self.tokens, 0, layer)) // later
        return None if count < 1 else min(count, self.tokens)

    def pair(self, spend: int, ratio: Fraction, layer: int) -> tuple[int, int] | None:
        """Counts of a merger and of a selector after ``layer`` that spend exactly so much together.

        Args:
            spend: what all layers may see.
            ratio: fraction of the merged tokens that the selector should keep; the nearest that is exact is taken.
            layer: where the selector stands.

        Returns:
            ``(merged, selected)``, or None where no such pair exists.
        """
        later = self.depth - layer - 1
        best: tuple[Fraction, int, int] | None = None
        for merged in range(1, self.tokens + 1):
            selected, rest = divmod(spend - (layer + 1) * merged, later) if later else (0, 1)
            if rest == 0 and 1 <= selected <= merged:
                candidate = (abs(Fraction(selected, merged) - ratio), merged, selected)
                best = candidate if best is None else min(best, candidate)
        return None if best is None else best[1:]
