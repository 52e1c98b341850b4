# SPDX-License-Identifier: Apache-2.0
"""An operator at its place in one model."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, cast

from tokenprune.errors import InvalidValueError, PlanError
from tokenprune.layers import resolve_layer
from tokenprune.operator import AFTER_LAYER, Operator, layer_of, modalities_of, needs_of, reads_of, site_of
from tokenprune.plan import TokenPlan
from tokenprune.signals import ATTENTION, ATTENTION_BEFORE, ATTENTION_NEXT, FEATURES, VALUES
from tokenprune.tokens import VisualTokens


@dataclass(frozen=True)
class Stage:
    """An operator at its place in one model, with everything that it left to defaults filled in.

    >>> stage = Stage.of(tp.AttnPrune(layer=0.36, keep_ratio=0.4), depth=28)
    >>> stage.name, stage.layer, stage.leaves(100)
    ('AttnPrune', 10, 40)

    Args:
        operator: the operator.
        site: one of :data:`tokenprune.operator.SITES`.
        layer: index of the decoder layer after which it acts; None elsewhere.
        modalities: which visual tokens it is shown.
        needs: the signals it reads.
        reads: what it reads of a layer; None: it does not say.
        schedule: place in the pipeline of the schedule that it belongs to; None: it stands alone.
    """

    operator: Operator
    site: str
    layer: int | None
    modalities: tuple[str, ...]
    needs: tuple[str, ...]
    reads: tuple[str, ...] | None = None
    schedule: int | None = None

    @classmethod
    def of(
        cls,
        operator: Operator,
        depth: int,
        schedule: int | None = None,
        readable: Collection[int] | None = None,
    ) -> Stage:
        """The operator in a decoder of ``depth`` layers, of which ``readable`` (None: all) have attention to be read.

        Raises:
            InvalidValueError: its layer lies beyond, or it reads the attention of a layer that has none.
        """
        site, needs, reads = site_of(operator), needs_of(operator), reads_of(operator)
        layer = None
        if site == AFTER_LAYER:
            reads_own = reads is None or ATTENTION in reads or VALUES in reads
            own = readable if ATTENTION in needs and reads_own else None
            layer = resolve_layer(layer_of(operator), depth, own)
            for name, offset in ((ATTENTION_BEFORE, -1), (ATTENTION_NEXT, 1)):
                if readable is not None and name in (reads or ()) and layer + offset not in readable:
                    raise InvalidValueError(
                        f"{type(operator).__name__} after layer {layer} reads the attention of layer {layer + offset}, "
                        "which has none"
                    )
        return cls(operator, site, layer, modalities_of(operator), needs, reads, schedule)

    @property
    def name(self) -> str:
        """The operator's class name."""
        return type(self.operator).__name__

    @property
    def needs_unrotated_keys(self) -> bool:
        """Whether keys before RoPE are read, which a cache does not hold."""
        parts = (self.operator, getattr(self.operator, "scorer", None))
        return any(getattr(part, "needs_unrotated_keys", False) for part in parts)

    def may_read(self, what: str) -> bool:
        """Whether it may read this of a layer (:data:`tokenprune.signals.READS`)."""
        if what != FEATURES and ATTENTION not in self.needs:
            return False
        return self.reads is None or what in self.reads

    @property
    def reads_text_rows(self) -> bool:
        """Whether it cannot do without text after the visual tokens."""
        rows = (ATTENTION, ATTENTION_BEFORE, ATTENTION_NEXT)
        return "text" in self.needs or any(self.may_read(what) for what in rows)

    def of_entered(self, entered: int) -> Stage:
        """The stage of a schedule with the exact number that its ratio means: of what entered the schedule."""
        operator: Any = self.operator
        if self.schedule is None or not entered:
            return self
        if hasattr(operator, "of_entered"):
            return replace(self, operator=operator.of_entered(entered))
        if getattr(operator, "keep_ratio", None) is None:
            return self
        if "keep" not in getattr(operator, "__dataclass_fields__", ()):
            return self
        return replace(self, operator=replace(operator, keep_ratio=None, keep=self.leaves(entered)))

    def leaves(self, total: int) -> int | None:
        """How many of ``total`` tokens it will leave, as far as that is known before it is asked."""
        budget: Any = getattr(self.operator, "budget", None)
        return total if total == 0 else (None if budget is None else budget(total))

    def acts_on(self, total: int) -> bool:
        """Whether it may change anything about ``total`` tokens."""
        return self.leaves(total) != total

    def decide(self, tokens: VisualTokens) -> TokenPlan:
        """Its plan, checked: a lawful plan over these tokens that leaves what its budget says.

        Raises:
            PlanError: the plan breaks a law.
        """
        return self._checked(cast(object, self.operator.plan(tokens)), tokens)

    def decide_heads(self, tokens: VisualTokens, heads: int) -> list[TokenPlan]:
        """Its plan for each key-value head of one layer's cache; a list of one where the heads share it."""
        plans = self.operator.plan(tokens)
        if isinstance(plans, TokenPlan):
            return [self._checked(plans, tokens)]
        if len(plans) != heads or len({plan.kept for plan in plans}) != 1:
            raise PlanError(
                f"{self.name} must return one plan, or one for each of {heads} heads that keep equally many"
            )
        return [self._checked(plan, tokens) for plan in plans]

    def _checked(self, plan: object, tokens: VisualTokens) -> TokenPlan:
        if not isinstance(plan, TokenPlan):
            raise PlanError(f"{self.name}.plan must return a TokenPlan, got {type(plan).__name__}")
        if plan.total != len(tokens):
            raise PlanError(f"{self.name} was asked about {len(tokens)} tokens and gave a plan over {plan.total}")
        wanted = self.leaves(len(tokens))
        if wanted is not None and plan.kept != wanted:
            raise PlanError(f"{self.name}.budget leaves {wanted} of {len(tokens)} tokens, but its plan {plan.kept}")
        return plan.validate()
