# SPDX-License-Identifier: Apache-2.0
"""What an adapter tells the runtime about a model; it translates and decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

from tokenprune.attention_view import AttentionView
from tokenprune.errors import InvalidValueError, MissingHookError

T = TypeVar("T")


@dataclass(frozen=True)
class Accepted:
    """The adapter can serve this model.

    Args:
        depth: its number of decoder layers.
        readable: the layers whose attention can be read; None: all of them.
        yields: step back where another adapter accepts the model, too: that of a table does, for one of its own.

    >>> Accepted(depth=28).depth
    28
    """

    depth: int
    yields: bool = False
    readable: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Declined:
    """The adapter cannot serve this model; ``reason`` is one line that says why, or what to install.

    >>> Declined("needs transformers 5.17 or newer").reason
    'needs transformers 5.17 or newer'
    """

    reason: str


@dataclass(frozen=True, eq=False)
class Prompt:
    """The tokens of one prefill, padding included.

    >>> prompt = Prompt(torch.tensor([[0, 7, 8]]), position_ids=None, valid=torch.tensor([[False, True, True]]))
    >>> int(prompt.valid.sum())
    2

    Args:
        input_ids: ``(B, L)`` ids as the forward received them.
        position_ids: positions as the decoder received them: ``(3, B, L)`` for M-RoPE, ``(B, L)`` otherwise, None
            where the model lets the decoder count.
        valid: ``(B, L)`` bool, False for padding.
    """

    input_ids: Tensor
    position_ids: Tensor | None
    valid: Tensor


@dataclass(frozen=True, eq=False)
class VisualSpan:
    """One video or image of a prompt row.

    >>> VisualSpan("video", (2, 1, 2), torch.tensor([3, 4, 6, 7])).grid  # a timestamp stands in column 5
    (2, 1, 2)

    Args:
        modality: ``"video"`` or ``"image"``.
        grid: ``(T, H, W)`` of its visual tokens.
        columns: ``(T*H*W,)`` int64 prompt columns in raster order, strictly increasing, not necessarily contiguous.
    """

    modality: str
    grid: tuple[int, int, int]
    columns: Tensor

    def __post_init__(self) -> None:
        frames, height, width = self.grid
        if frames * height * width != len(self.columns):
            raise InvalidValueError(
                f"a {self.modality} of grid {self.grid} has {frames * height * width} tokens, "
                f"but the prompt holds {len(self.columns)}"
            )


class Removable(Protocol):
    """Something put on a model that can be taken off again."""

    def remove(self) -> None: ...


class AttentionReader(Protocol):
    """Reads queries and keys of one decoder layer while it runs a prefill; never an attention matrix."""

    def watch(self, rows: Sequence[Tensor]) -> Sequence[Removable]:
        """Start capturing, for each prompt row the queries at ``rows[b]`` (places in the running sequence)."""
        ...

    def view(
        self,
        row: int,
        earlier_keys: Tensor | None,
        valid_keys: Tensor,
        visual_places: Tensor,
        mass: Tensor | None = None,
    ) -> AttentionView:
        """What the layer just computed, for one prompt row.

        Args:
            row: row of the batch.
            earlier_keys: ``(kv_heads, P, head_dim)`` rotated keys that the cache held before this prefill, or None.
            valid_keys: ``(P + L,)`` bool over earlier and new keys.
            visual_places: ``(N,)`` places of the visual tokens in the running sequence (without the earlier P).
            mass: ``(P + L,)`` fp32 how many tokens each key stands for in the layer's softmax; None: one each.
        """
        ...


class ModelPort(Protocol):
    """The one place that touches the model: it puts hooks on and lets its host decide at each point."""

    def install(self, host: Any, /) -> Sequence[Removable]:
        """Put the hooks on; on any error nothing stays installed.

        Args:
            host: what runs the session, a :class:`tokenprune.runtime.active.ActivePipeline`. Not named by type,
                because an adapter can be written, and found, without the runtime.
        """
        ...


DecoderPort = ModelPort
"""The name of 0.1."""


class ModelAdapter(Protocol):
    """Answers for the models of one family; offered by the hook ``tokenprune_model_adapters``.

    ``model`` is always the one that was given to :func:`tokenprune.attach`, possibly inside a wrapper such as PEFT's.
    """

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    def accepts(self, model: nn.Module) -> Accepted | Declined:
        """Is this model yours? :class:`Accepted` with its depth, or :class:`Declined` with a line that says why not.

        Asked of every adapter for every model, so it must be quick; an exception counts as a decline.
        """
        ...

    def boundaries(self, model: nn.Module, prompt: Prompt) -> Sequence[Sequence[VisualSpan]]:
        """Per prompt row its videos and images, in order: grid and the T*H*W prompt columns in raster order.

        Raises:
            UnsupportedModeError: the layout cannot be read with certainty.
        """
        ...

    def attention(self, model: nn.Module, layer: int) -> AttentionReader:
        """A reader of the queries and keys that decoder layer ``layer`` computes."""
        ...

    def port(self, model: nn.Module) -> ModelPort:
        """What carries a prefill of this model (``tokenprune.hf`` has one for Hugging Face decoders).

        Which caches can be cut, and how, is the port's own matter.
        """
        ...


@dataclass(frozen=True, eq=False)
class AdaptedModel:
    """A model and the adapter that accepted it.

    >>> from tokenprune.plugins import find_adapter
    >>> find_adapter(model).depth
    8

    Args:
        adapter: the adapter.
        model: the model.
        depth: its number of decoder layers.
        readable: the layers whose attention can be read; None: all of them.

    Every method raises :class:`MissingHookError` where the adapter answers nothing, and passes on what it raises.
    """

    adapter: ModelAdapter
    model: nn.Module
    depth: int
    readable: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        """Name of the adapter."""
        return self.adapter.name

    def boundaries(self, prompt: Prompt) -> Sequence[Sequence[VisualSpan]]:
        """Per prompt row its videos and images, in order."""
        return self._given("boundaries", self.adapter.boundaries(self.model, prompt))

    def can_read(self, layer: int) -> bool:
        """Whether the attention of this layer can be read."""
        return self.readable is None or layer in self.readable

    def attention(self, layer: int) -> AttentionReader:
        """A reader of the queries and keys that decoder layer ``layer`` computes."""
        return self._given("attention", self.adapter.attention(self.model, layer))

    def port(self) -> ModelPort:
        """What carries a prefill of the model."""
        return self._given("port", self.adapter.port(self.model))

    def _given(self, question: str, answer: T) -> T:
        if answer is None:
            raise MissingHookError(f"{question} of adapter {self.name} returned nothing")
        return answer
