# SPDX-License-Identifier: Apache-2.0
"""What has to be said of a family of models; all else is asked of the model itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from torch import nn

from tokenprune.carried import Carried
from tokenprune.hf.families.grids import GridRule, Placeholders

if TYPE_CHECKING:
    from tokenprune.hf.frontend.family import Parts

IMAGES_AND_VIDEOS: Mapping[str, str] = MappingProxyType({"video": "video_token_id", "image": "image_token_id"})


def nothing_to_refuse(config: Any) -> str | None:
    """The default of :attr:`Family.refuse`."""
    return None


@dataclass(frozen=True)
class Family:
    """One row of the table: a family of vision-language models, everything by name.

    Derived, not declared: how queries and keys are rotated, sizes and norms of heads, number and kinds of layers. So a
    row is a few lines; :data:`tokenprune.hf.families.table.FAMILIES` has them all.

    Args:
        name: what messages call it.
        model_type: what a checkpoint's ``config.json`` says.
        model_class: name of the library's class with a language head, whose ``generate`` is called.
        grid: how its prompts hold videos and images.
        prompt: where in that class the module stands whose forward receives ``input_ids``.
        text: the decoder, which receives ``inputs_embeds`` and has ``layers``.
        tower: the vision tower.
        earlier: where prompt, text and tower stand in releases that have the model otherwise.
        placeholders: modality -> name in the config of its placeholder id.
        carried: what travels with the tokens beyond what every decoder has.
        encoder: whether the tower is built like Qwen's, so that its attention can be read (signals of the encoder).
        decoders: class names of the decoders that have been tried; empty: the family has one of its own.
        refuse: from a config to the reason why such a model cannot be pruned, or None.
        refused_arguments: argument of ``generate`` or of a forward -> why nothing but None and False can be given.
        needs: packages beyond the extra ``[hf]``'s usual ones that its processor imports.
        note: what is special, for people.
        known: ids that are guessed at where a name is misspelt.
    """

    name: str
    model_type: str
    model_class: str
    grid: GridRule
    prompt: str = "model"
    text: str = "model.language_model"
    tower: str = "model.visual"
    earlier: tuple[str, str, str] | None = None
    placeholders: Mapping[str, str] = field(default_factory=lambda: IMAGES_AND_VIDEOS)
    carried: tuple[Carried, ...] = ()
    encoder: bool = False
    decoders: tuple[str, ...] = ()
    refuse: Callable[[Any], str | None] = nothing_to_refuse
    refused_arguments: Mapping[str, str] = field(default_factory=dict[str, str])
    needs: tuple[str, ...] = ()
    note: str = ""
    known: tuple[str, ...] = ()

    def ids(self, config: Any) -> Placeholders:
        """Placeholder ids of a model with this config."""
        return {modality: int(getattr(config, name)) for modality, name in self.placeholders.items()}

    def placed(self, head: nn.Module) -> Family:
        """The same row with the places that this model's release has."""
        if self.earlier is None:
            return self
        try:
            head.get_submodule(self.text)
        except AttributeError:
            prompt, text, tower = self.earlier
            return replace(self, prompt=prompt, text=text, tower=tower)
        return self

    def parts(self, model: nn.Module) -> Parts:
        """Parts of a model of this family, in any wrapper.

        Raises:
            UnsupportedModeError: it is none.
        """
        from tokenprune.hf.families.find import require_parts

        return require_parts(self, model)
