# SPDX-License-Identifier: Apache-2.0
"""What operators, scorers and caches promise; anything that keeps the promise can be used, no base class needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from tokenprune.budget import Budget
from tokenprune.errors import InvalidValueError
from tokenprune.layers import check_layer
from tokenprune.messages import shown
from tokenprune.plan import TokenPlan
from tokenprune.signals import check_needs, check_reads
from tokenprune.tokens import VisualTokens

BEFORE_LLM, AFTER_LAYER, AFTER_PREFILL = "before_llm", "after_layer", "after_prefill"
SITES = (BEFORE_LLM, AFTER_LAYER, AFTER_PREFILL)
"""Where an operator acts, in the order of a prefill: on the embeddings, on hidden states and cache, on the cache."""

MODALITIES = ("video", "image")


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
