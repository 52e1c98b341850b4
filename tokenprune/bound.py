# SPDX-License-Identifier: Apache-2.0
"""An adapter bound to the model that it accepted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from tokenprune.adapter import AttentionReader, DecoderPort, Prompt, VisualSpan
from tokenprune.errors import MissingHookError
from tokenprune.loading import Plugin
from tokenprune.operator import PrunableCache


@dataclass(frozen=True, eq=False)
class BoundAdapter:
    """One plugin's answers about one model; no other plugin is asked.

    Args:
        plugin: the plugin that accepted the model.
        model: the model.
        depth: its number of decoder layers.

    Every method raises :class:`MissingHookError` where the plugin lacks the hook, and passes on what the hook raises.
    """

    plugin: Plugin
    model: nn.Module
    depth: int

    @property
    def name(self) -> str:
        """Name of the plugin."""
        return self.plugin.info.name

    @property
    def hooks(self) -> tuple[str, ...]:
        """Names of the hooks the plugin has."""
        return self.plugin.info.hooks

    def decoder(self) -> DecoderPort:
        """The port that carries a prefill of the model."""
        return self._call("tokenprune_decoder")

    def visual_boundaries(self, prompt: Prompt) -> Sequence[Sequence[VisualSpan]]:
        """Per prompt row its videos and images, in order."""
        return self._call("tokenprune_visual_boundaries", prompt=prompt)

    def attention_view(self, layer: int) -> AttentionReader:
        """A reader of the queries and keys that decoder layer ``layer`` computes."""
        return self._call("tokenprune_attention_view", layer=layer)

    def cache_layers(self, cache: object) -> PrunableCache:
        """Make the layers of ``cache`` prunable, in place, and return the handle that cuts them."""
        return self._call("tokenprune_cache_layers", cache=cache)

    def _call(self, hook: str, **arguments: object) -> Any:
        if hook not in self.hooks:
            raise MissingHookError(f"adapter {self.name} has no hook {hook}")
        result = self.plugin.call(hook, model=self.model, **arguments)
        if result is None:
            raise MissingHookError(f"hook {hook} of adapter {self.name} returned nothing")
        return result
