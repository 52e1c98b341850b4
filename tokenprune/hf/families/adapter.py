# SPDX-License-Identifier: Apache-2.0
"""The adapter that answers for every family of the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from torch import nn

from tokenprune.adapter import Accepted, AttentionReader, Declined, ModelPort, Prompt, VisualSpan
from tokenprune.errors import UnsupportedModeError
from tokenprune.hf.families.declined import DECLINED
from tokenprune.hf.families.family import Family
from tokenprune.hf.families.find import head_of, heads_in, why_not
from tokenprune.hf.families.table import FAMILIES


@dataclass(frozen=True)
class FamiliesAdapter:
    """A :class:`tokenprune.ModelAdapter` that looks a model up in a table.

    Args:
        families: the rows.
        declined: class name -> why models of this class cannot be pruned.
        name: what messages call it.
    """

    families: Sequence[Family] = FAMILIES
    declined: Mapping[str, str] = field(default_factory=lambda: DECLINED)
    name: str = "families"

    @property
    def models(self) -> tuple[tuple[str, str], ...]:
        """What it knows: each name, and what stands in the way or ``""``; ``tokenprune plugins`` shows it."""
        return (*((family.name, _missing(family)) for family in self.families), *self.declined.items())

    def accepts(self, model: nn.Module) -> Accepted | Declined:
        rows = {family.model_class: family for family in self.families}
        found = heads_in(model, {*rows, *self.declined})
        name = type(model).__name__
        if not found:
            return Declined(
                f"{name} holds no model of the table ({', '.join(family.name for family in self.families)})"
            )
        if len(found) > 1:
            return Declined(f"{name} holds {len(found)} models with a language head; attach to one of them")
        [(place, kind)] = found
        if kind in self.declined:
            return Declined(f"{kind}: {self.declined[kind]}")
        head = model.get_submodule(place)
        reason = why_not(rows[kind], head)
        if reason is not None:
            return Declined(f"{rows[kind].name}: {reason}")
        layers: Any = head.get_submodule(rows[kind].placed(head).text).get_submodule("layers")
        readable = tuple(index for index, layer in enumerate(layers) if hasattr(layer, "self_attn"))
        return Accepted(len(layers), yields=True, readable=None if len(readable) == len(layers) else readable)

    def boundaries(self, model: nn.Module, prompt: Prompt) -> Sequence[Sequence[VisualSpan]]:
        family, head = self._found(model)
        return family.grid.spans(prompt, family.ids(head.config), head.config)

    def attention(self, model: nn.Module, layer: int) -> AttentionReader:
        from tokenprune.hf.attention import ProjectionReader

        family, head = self._found(model)
        attention: Any = head.get_submodule(family.placed(head).text).layers[layer].self_attn
        query, key = (getattr(attention, norm, None) for norm in ("q_norm", "k_norm"))
        return ProjectionReader(
            attention, query or attention.q_proj, key or attention.k_proj, attention.head_dim, attention.scaling
        )

    def port(self, model: nn.Module) -> ModelPort:
        from tokenprune.hf.decoder import HFDecoder

        family, _ = self._found(model)
        parts = family.parts(model)
        refused = family.refused_arguments
        return HFDecoder(parts.model, parts.prompt, parts.text, parts.encoder, family.carried, refused)

    def family_of(self, model: nn.Module) -> Family:
        """The row of a model.

        Raises:
            UnsupportedModeError: it has none.
        """
        return self._found(model)[0]

    def _found(self, model: nn.Module) -> tuple[Family, Any]:
        rows = {family.model_class: family for family in self.families}
        found = head_of(model, rows)
        if found is None:
            raise UnsupportedModeError(f"{type(model).__name__} is no model of the table")
        kind, head = found
        return rows[kind], head


def _missing(family: Family) -> str:
    missing = [name for name in family.needs if find_spec(name) is None]
    return f"its processor needs {', '.join(missing)}: pip install {' '.join(missing)}" if missing else ""
