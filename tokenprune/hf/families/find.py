# SPDX-License-Identifier: Apache-2.0
"""Finding the models of a family, by the names of their classes, inside any wrapper."""

from __future__ import annotations

import weakref
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from torch import nn

from tokenprune.errors import UnsupportedModeError
from tokenprune.hf.families.family import Family

if TYPE_CHECKING:
    from tokenprune.hf.encoder import VisionEncoder
    from tokenprune.hf.frontend.family import Parts

UNCUT = {
    "sliding_attention": "sliding-window layers, whose cache cannot be cut",
    "chunked_attention": "layers that attend in chunks, whose cache cannot be cut",
}
"""Kinds of layers that no cut is right for -> what they are."""

# Names, not modules: a module that is reachable from its model would keep it alive.
_places: weakref.WeakKeyDictionary[nn.Module, str] = weakref.WeakKeyDictionary()


def named_as(module: nn.Module, names: Collection[str]) -> str | None:
    """The name among ``names`` of the module's class, or of one that it derives from, where it is the library's."""
    for kind in type(module).__mro__:
        if kind.__name__ in names and kind.__module__.split(".")[0] == "transformers":
            return kind.__name__
    return None


def heads_in(model: nn.Module, names: Collection[str]) -> list[tuple[str, str]]:
    """``(place, class name)`` of each module of one of these classes; what stands inside another is not counted."""
    found: list[tuple[str, str]] = []
    for place, module in model.named_modules():
        name = named_as(module, names)
        if name is not None and not any(place.startswith(outer + "." if outer else "") for outer, _ in found):
            found.append((place, name))
    return found


def head_of(model: nn.Module, names: Collection[str]) -> tuple[str, Any] | None:
    """Class name and module of the one model of these classes in ``model``; None: there is none, or more.

    Quick where it was found before, for it is asked with each prefill: a walk over a large model takes milliseconds.
    """
    try:
        known: Any = model.get_submodule(_places[model]) if model in _places else None
    except AttributeError:
        known = None
    name = None if known is None else named_as(known, names)
    if name is not None:
        return name, known
    found = heads_in(model, names)
    if len(found) != 1:
        return None
    [(place, name)] = found
    _places[model] = place
    return name, model.get_submodule(place)


def why_not(family: Family, head: nn.Module) -> str | None:
    """One line that says why this model of the family cannot be pruned, or None."""
    from tokenprune.hf.attention import rotation_of

    text: Any = head.get_submodule(family.placed(head).text)
    kind = type(text).__name__
    if family.decoders and named_as(text, family.decoders) is None:
        return f"its language model is a {kind}; tried are {', '.join(family.decoders)}"
    kinds: list[str] = list(getattr(text.config, "layer_types", None) or ())
    if not kinds and getattr(text.config, "sliding_window", None):
        kinds = ["sliding_attention"]
    uncut = next((UNCUT[kind] for kind in kinds if kind in UNCUT), None)
    reason = family.refuse(head.config) if uncut is None else f"the decoder has {uncut}"
    if reason is not None:
        return reason
    for index, layer in enumerate(text.layers):
        attention = getattr(layer, "self_attn", None)
        if attention is None and kinds and kinds[index] == "linear_attention":
            continue  # it keeps a state instead of tokens: there is nothing to read or cut
        if attention is None or not all(hasattr(attention, name) for name in ("q_proj", "k_proj", "scaling")):
            return f"layer {index} has no attention whose queries and keys can be read"
        try:
            rotation_of(attention)
        except UnsupportedModeError as error:
            return str(error)
    return None


def require_parts(family: Family, model: nn.Module) -> Parts:
    """The parts of a model that has been accepted.

    Raises:
        UnsupportedModeError: it is no model of the family.
    """
    from tokenprune.hf.frontend.family import Parts

    found = head_of(model, (family.model_class,))
    if found is None:
        raise UnsupportedModeError(f"{type(model).__name__} is no {family.name} model that can be pruned")
    _, head = found
    placed = family.placed(head)
    tower = head.get_submodule(placed.tower)
    return Parts(
        head,
        head.get_submodule(placed.prompt),
        head.get_submodule(placed.text),
        tower,
        _encoder(tower) if family.encoder else None,
    )


def _encoder(tower: Any) -> VisionEncoder:
    """A tower like Qwen's, all of whose blocks see whole frames; tokens stand in raster order."""
    from tokenprune.hf.encoder import VisionEncoder

    return VisionEncoder(tower, tower.blocks[len(tower.blocks) - 1].attn, int(tower.spatial_merge_size))
