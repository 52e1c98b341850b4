# SPDX-License-Identifier: Apache-2.0
"""What travels through a Hugging Face decoder beside its tokens, and the one place where all of it is shortened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from tokenprune.carried import GATHER, MERGE, Carried
from tokenprune.errors import UnsupportedModeError
from tokenprune.runtime.state import Step

EMBEDS = Carried("inputs_embeds", MERGE)
HIDDEN = Carried("hidden_states", MERGE)
EVERY_DECODER = (
    EMBEDS,
    HIDDEN,
    Carried("position_ids", GATHER, token_dim=-1, batch_dim=-2),  # (B, S), or (3, B, S) of M-RoPE
    Carried("position_embeddings", GATHER, token_dim=-2, batch_dim=-3),  # cos and sin, (B, S, head_dim)
)
"""What every decoder has. Masks are missing on purpose: their form belongs to the attention backend, so they are made
anew of the carried :class:`tokenprune.runtime.slots.Slots`, which say where padding stands."""

MADE_ANEW = "attention_mask"


@dataclass(eq=False)
class Cargo:
    """What travels through one forward of a decoder.

    Args:
        more: what the family declares beyond :data:`EVERY_DECODER`.
    """

    more: Sequence[Carried] = ()
    additions: list[Tensor] = field(default_factory=list[Tensor], init=False)
    """``(B, S, D)`` features to be added after layer 0, 1, ...; only once the decoder's own code cannot add them."""
    places: Tensor | None = field(default=None, init=False)
    """``(B, S)`` bool where they are added."""

    def __post_init__(self) -> None:
        self.declared = {each.name: each for each in (*EVERY_DECODER, *self.more)}
        self._packed = next((each for each in self.more if each.packed_by is not None), None)
        self._since: list[Step] = []  # steps that the decoder's own variables have not been through
        self._known: dict[int, tuple[object, object]] = {}

    def count_additions(self, arguments: Mapping[str, Any]) -> int:
        """After how many layers the decoder, called like this, adds features to its hidden states."""
        found = None if self._packed is None else arguments.get(self._packed.name)
        return 0 if found is None else len(found)

    def take_additions(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The decoder's arguments without the features it would add by itself: those are carried and added here.

        A decoder adds them where they stood when it was called, which is wrong once tokens are gone.
        """
        if self._packed is None or self._packed.packed_by is None or not self.count_additions(arguments):
            return arguments
        embeds, mask = arguments[EMBEDS.name], arguments[self._packed.packed_by].to(arguments[EMBEDS.name].device)
        for packed in arguments[self._packed.name]:
            spread = embeds.new_zeros(*mask.shape, packed.shape[-1])
            spread[mask] = packed.to(spread)
            self.additions.append(spread)
        self.places = mask
        return {**arguments, self._packed.name: None, self._packed.packed_by: None}

    def shorten_arguments(self, arguments: dict[str, Any], step: Step) -> dict[str, Any]:
        """The decoder's arguments after a step before the LLM.

        Raises:
            UnsupportedModeError: one of them has a place for every token, but nobody has declared how it travels.
        """
        arguments = self.take_additions(arguments)
        shape = arguments[EMBEDS.name].shape[:2]
        for name, value in arguments.items():
            if isinstance(value, Tensor) and value.ndim > 1 and value.shape[:2] == shape:
                if name not in self.declared and name != MADE_ANEW:
                    raise UnsupportedModeError(
                        f"{name} goes with the tokens into the decoder, but nothing says how it is shortened with them"
                    )
        self._shorten_additions(step)
        return {name: self._after(name, value, step) for name, value in arguments.items()}

    def shorten_hidden(self, hidden: Tensor, step: Step) -> Tensor:
        """The hidden states after a step after a layer; what the decoder hands to later layers follows in time."""
        self._since.append(step)
        self._known.clear()
        self._shorten_additions(step)
        return step.carry(hidden, HIDDEN)

    def for_layer(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """A layer's arguments, which the decoder made before the steps after earlier layers."""
        return {name: self._up_to_date(name, value) for name, value in arguments.items()}

    def add(self, hidden: Tensor, layer: int) -> Tensor:
        """What the decoder would have added to the hidden states after this layer, added."""
        if self.places is None:
            return hidden
        where, added = self.places.to(hidden.device).unsqueeze(-1), self.additions[layer].to(hidden)
        return (hidden + added).where(where, hidden)

    def _shorten_additions(self, step: Step) -> None:
        if self._packed is None or self.places is None:
            return
        rule = Carried(self._packed.name, self._packed.rule)
        self.additions = [step.carry(features, rule) for features in self.additions]
        self.places = step.carry(self.places, Carried(str(self._packed.packed_by)))

    def _up_to_date(self, name: str, value: Any) -> Any:
        """The value after all steps since the decoder was called; layers that share one share what is left of it."""
        if name not in self.declared or not self._since:
            return value
        if id(value) not in self._known:
            now = value
            for step in self._since:
                now = self._after(name, now, step)
            self._known[id(value)] = (value, now)  # the source too, so that its id stays its own
        return self._known[id(value)][1]

    def _after(self, name: str, value: Any, step: Step) -> Any:
        if name not in self.declared:
            return value
        carried = self.declared[name]
        if isinstance(value, Tensor):
            return step.carry(value, carried)
        if isinstance(value, tuple | list):
            return type(value)(self._after(name, part, step) for part in value)
        return value
