# SPDX-License-Identifier: Apache-2.0
"""Standing in front of a module's methods, and stepping aside again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


class InFront:
    """An instance attribute that hides a method of a module until it is removed."""

    def __init__(self, module: nn.Module, name: str, value: Callable[..., Any]) -> None:
        self.module = module
        self._name = name
        self._previous = [module.__dict__[name]] if name in module.__dict__ else []
        module.__dict__[name] = value

    def remove(self) -> None:
        self.restore(self.module.__dict__)

    def restore(self, attributes: dict[str, Any]) -> None:
        """Make these attributes of the module, or a copy of them, what they were before."""
        if self._previous:
            attributes[self._name] = self._previous[0]
        else:
            attributes.pop(self._name, None)
