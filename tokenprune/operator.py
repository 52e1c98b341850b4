# SPDX-License-Identifier: Apache-2.0
"""What operators, scorers and caches promise; anything that keeps the promise can be used, no base class needed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

from torch import Tensor

from tokenprune.budget import Budget
from tokenprune.errors import InvalidValueError, PlanError
from tokenprune.layers import check_layer, resolve_layer
from tokenprune.messages import shown
from tokenprune.plan import TokenPlan
from tokenprune.signals import ATTENTION, ATTENTION_BEFORE, ATTENTION_NEXT, FEATURES, VALUES, check_needs, check_reads
from tokenprune.tokens import VisualTokens

BEFORE_LLM, AFTER_LAYER, AFTER_PREFILL = "before_llm", "after_layer", "after_prefill"
SITES = (BEFORE_LLM, AFTER_LAYER, AFTER_PREFILL)
"""Where an operator acts, in the order of a prefill: on the embeddings, on hidden states and cache, on the cache."""

MODALITIES = ("video", "image")
T = TypeVar("T")


@runtime_checkable
class Operator(Protocol):
    """Decides which visual tokens go on, and what is merged into them; it never applies anything itself.

    What else it may have, each with a default:

    * ``site``: one of :data:`SITES` (default ``"before_llm"``). Before the LLM it is asked about one video or image, at
      a layer about all visual tokens of a prompt row, after the prefill once for every layer of the cache.
    * ``layer``: at ``"after_layer"``: layers 0..layer see every token, later ones the kept.
    * ``modalities``: which visual tokens it is shown (default ``("video",)``).
    * ``needs``: names of the signals it reads (default none); see :data:`tokenprune.signals.RULES`.
    * ``reads``: of a layer, which of :data:`tokenprune.signals.READS`; nothing else is captured, ``features`` have no
      components where they are not among them. Left out: all that there is.
    * ``budget``: ``budget(total)`` is the exact number it will leave, None where the content decides (the default).
    * ``needs_full_grid``: True where it must be the first, because it reads frames and positions from the whole grid.
    * ``mass``: ``"sizes"`` where it is meant to be used with attention mass.

    >>> class EveryThird:
    ...     def plan(self, tokens):
    ...         return TokenPlan.keeping(torch.arange(0, len(tokens), 3), len(tokens))
    >>> isinstance(EveryThird(), Operator)
    True
    """

    def plan(self, tokens: VisualTokens) -> TokenPlan | Sequence[TokenPlan]:
        """Decide; a pure function of the tokens, the same plan for the same bits.

        After the prefill it may return one plan for each key-value head, all of which keep equally many.
        """
        ...


@runtime_checkable
class TokenMerger(Protocol):
    """An operator that returns one plan: all of them, except those after the prefill that decide for each head.

    >>> isinstance(tp.STMerge(), TokenMerger)
    True
    """

    def plan(self, tokens: VisualTokens) -> TokenPlan:
        """Decide; a pure function of the tokens, the same plan for the same bits."""
        ...


@runtime_checkable
class TokenScorer(Protocol):
    """How much each visual token matters to the text, usually read from one layer's attention.

    A class attribute ``needs_unrotated_keys = True`` tells that the scorer reads keys before RoPE, which the caches
    of earlier turns do not hold: such a scorer is refused on a continued cache. A class attribute
    ``reads_attention = False`` (default True) tells that the scorer needs neither queries nor keys: nothing is then
    captured, and no text row is required.

    >>> class Loudest:
    ...     reads_attention = False
    ...     def score(self, tokens):
    ...         return tokens.features.float().norm(dim=1)
    >>> tp.AttnPrune(layer=10, keep=64, scorer=Loudest()).budget(576)
    64
    """

    def score(self, tokens: VisualTokens) -> Tensor:
        """``(N,)`` fp32 scores; higher stays. ``tokens.signals["attention"]`` is the layer's :class:`AttentionView`."""
        ...


@runtime_checkable
class TokenSelector(Protocol):
    """An operator inside the LLM that ranks scores, as :class:`AttnPrune` does.

    >>> isinstance(tp.AttnPrune(layer=10, keep=64), TokenSelector)
    True
    """

    @property
    def layer(self) -> int | float: ...

    @property
    def modalities(self) -> tuple[str, ...]: ...

    @property
    def budget(self) -> Budget: ...

    @property
    def scorer(self) -> TokenScorer: ...

    def choose(self, scores: Tensor, blocks: Tensor) -> TokenPlan:
        """The pruning for one prompt row from its ``(N,)`` scores and ``(N,)`` block labels."""
        ...


@runtime_checkable
class Schedule(Protocol):
    """Several operators that are one entry of a pipeline; ratios are of the tokens that entered its first stage.

    A stage that has ``keep_ratio`` and ``keep`` is asked with the exact number that its ratio of them means; one that
    has ``of_entered(count)`` is replaced by what that returns.

    >>> class Twice:
    ...     def operators(self, depth):
    ...         return [tp.UniformPrune(depth // 4, keep_ratio=0.5), tp.UniformPrune(depth // 2, keep_ratio=0.2)]
    >>> [stage.layer for stage in tp.Pipeline([Twice()]).stages(28)]
    [7, 14]
    """

    def operators(self, depth: int) -> Sequence[Operator]:
        """Its operators in a decoder of ``depth`` layers, in the order in which they act."""
        ...


class PrunableCache(Protocol):
    """A KV cache whose layers can be cut to a subset of their tokens, logical and stored lengths apart."""

    def cut(self, layer: int, index: Tensor, mask: Tensor) -> None:
        """Keep, in one layer, the stored tokens at ``index`` ``(B, K)``; where ``mask`` is False a slot is padding."""
        ...

    @property
    def logical_length(self) -> int:
        """Tokens the sequence has had, the removed ones included: where the next position stands."""
        ...

    @property
    def stored_length(self) -> int:
        """Slots each layer stores, the padding of shorter rows included."""
        ...


@dataclass(frozen=True)
class Stage:
    """An operator at its place in one model, with everything that it left to defaults filled in.

    >>> stage = Stage.of(tp.AttnPrune(layer=0.36, keep_ratio=0.4), depth=28)
    >>> stage.name, stage.layer, stage.leaves(100)
    ('AttnPrune', 10, 40)

    Args:
        operator: the operator.
        site: one of :data:`SITES`.
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


def site_of(operator: object) -> str:
    """Where an operator acts; raises :class:`InvalidValueError` for no site of :data:`SITES`.

    >>> site_of(tp.STMerge())
    'before_llm'
    """
    site = getattr(operator, "site", BEFORE_LLM)
    if site not in SITES:
        raise InvalidValueError(f"{type(operator).__name__}.site must be one of {', '.join(SITES)}, got {shown(site)}")
    return site


def layer_of(operator: object) -> int | float:
    """The layer of an operator inside the LLM, checked but not resolved.

    >>> layer_of(tp.UniformPrune(layer=0.36, keep=8))
    0.36
    """
    return check_layer(f"{type(operator).__name__}.layer", getattr(operator, "layer", None))  # type: ignore[arg-type]


def needs_of(operator: object) -> tuple[str, ...]:
    """The signals that an operator reads.

    >>> needs_of(tp.AttnPrune(layer=10, keep=8))
    ('attention',)
    """
    return check_needs(type(operator).__name__, getattr(operator, "needs", ()))


def reads_of(operator: object) -> tuple[str, ...] | None:
    """What an operator says that it reads of a layer; None: it does not say.

    >>> reads_of(tp.UniformPrune(keep=8))
    ()
    """
    return check_reads(type(operator).__name__, getattr(operator, "reads", None))


def modalities_of(operator: object) -> tuple[str, ...]:
    """Which visual tokens an operator is shown.

    >>> modalities_of(tp.STMerge())
    ('video',)
    """
    return check_modalities(getattr(operator, "modalities", ("video",)))


def check_modalities(modalities: Sequence[str]) -> tuple[str, ...]:
    """``modalities`` as a tuple: ``"video"``, ``"image"`` or both, each once.

    >>> check_modalities(["video", "image"])
    ('video', 'image')

    Raises:
        InvalidValueError: empty, repeated or unknown entries, or one plain string (write ``("video",)``).
    """
    allowed = f"a non-empty tuple of {' and/or '.join(map(repr, MODALITIES))}, each once"
    if isinstance(modalities, str) or not isinstance(modalities, Sequence):
        raise InvalidValueError(f"modalities must be {allowed}, for example ('video',), got {shown(modalities)}")
    if not modalities or any(m not in MODALITIES for m in modalities) or len(set(modalities)) < len(modalities):
        raise InvalidValueError(f"modalities must be {allowed}, got {shown(tuple(modalities))}")
    return tuple(modalities)
