# SPDX-License-Identifier: Apache-2.0
"""Every model that an installed adapter knows, as one family: loaded by the library's own Auto classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from tokenprune.errors import TokenPruneError, UnsupportedModeError
from tokenprune.hf.frontend.loading import first_line
from tokenprune.messages import shown

if TYPE_CHECKING:
    from tokenprune.hf.frontend.family import Parts

TOWERS = ("visual", "vision_tower", "vision_model", "vision_encoder")
"""What the library calls the module that sees the frames, beside the decoder."""


@dataclass(frozen=True)
class AutoFamily:
    """A :class:`tokenprune.hf.frontend.family.Family` that leaves it to the adapters which models it has.

    >>> AutoFamily().model_class
    'AutoModelForImageTextToText'
    """

    name: str = "transformers"
    model_class: str = "AutoModelForImageTextToText"

    @property
    def known(self) -> Sequence[str]:
        """Released models of the table of families."""
        from tokenprune.hf.families.table import FAMILIES

        return [name for family in FAMILIES for name in family.known]

    def declines(self, source: str, config: Mapping[str, Any]) -> str | None:
        """What the adapters say of a model of this configuration, made without weights."""
        from tokenprune.plugins import find_adapter

        try:
            model = without_weights(source)
        except Exception as error:  # the library has no class for it, or refuses its configuration
            return f"cannot make a model of its configuration: {_of_a_kind_unknown(config) or first_line(error)}"
        try:
            find_adapter(model)
        except TokenPruneError as error:
            return f"can make it, but {error}"
        return None

    def parts(self, model: nn.Module) -> Parts:
        """From the port of the adapter that accepts it."""
        from tokenprune.hf.decoder import HFDecoder
        from tokenprune.hf.frontend.family import Parts
        from tokenprune.plugins import find_adapter

        port = find_adapter(model).port()
        if not isinstance(port, HFDecoder):
            raise UnsupportedModeError(f"the adapter of {type(model).__name__} drives no Hugging Face decoder")
        tower = next((module for name in TOWERS if (module := getattr(port.prompt, name, None)) is not None), None)
        if tower is None:
            raise UnsupportedModeError(f"{type(port.prompt).__name__} has no vision tower that is known")
        return Parts(port.model, port.prompt, port.text, tower, port.encoder)

    def shipped(self) -> Path:
        """None ships."""
        raise FileNotFoundError("no model ships with this adapter")

    def demo(self) -> Path:
        """None ships."""
        raise FileNotFoundError("no clip ships with this adapter")

    def unknown_words(self, question: str) -> tuple[str, ...]:
        """Nothing is known of what its models were taught."""
        return ()


def _of_a_kind_unknown(config: Mapping[str, Any]) -> str | None:
    """That the library has no such model, or none that sees; None where it has one."""
    from transformers import __version__
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    kind = config.get("model_type")
    if kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return None
    return f"no model of type {shown(kind)} in release {__version__} sees images or videos"


def without_weights(source: str) -> nn.Module:
    """The model of a checkpoint's configuration, its parameters without any memory."""
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(source)
    with torch.device("meta"):
        model: nn.Module = transformers.AutoModelForImageTextToText.from_config(config)
    return model


AUTO = AutoFamily()
