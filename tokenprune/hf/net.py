# SPDX-License-Identifier: Apache-2.0
"""A net under everything unknown: what runs around the hooks ends in an error, never in an unpruned answer."""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from tokenprune.errors import UnsupportedModeError

VISUAL_INPUTS = ("pixel_values", "pixel_values_videos", "mm_encoder_outputs")


def gives_visual(arguments: Mapping[str, Any]) -> bool:
    """Whether a call is given videos or images, in any form."""
    types = arguments.get("mm_token_type_ids")
    placeholders = isinstance(types, Tensor) and bool(types.any())
    return placeholders or any(arguments.get(name) is not None for name in VISUAL_INPUTS)


class Net(threading.local):
    """Counts, in each thread, how often a forward has come through the hooks of the prompt and of the decoder."""

    def __init__(self) -> None:
        self._passed = 0
        self._passed_before = 0

    def passed(self) -> None:
        """The decoder's hook runs, and knows what the prompt's hook has seen."""
        self._passed += 1

    def before_model(self, module: nn.Module, args: Any) -> None:
        """A hook before the model's forward."""
        self._passed_before = self._passed

    def after_model(self, module: nn.Module, args: Any, output: Any) -> None:
        """A hook after it, so that the first forward to go around the decoder's hooks is the last of its call.

        Text is held to it too: what carries it around the hooks would do the same with a video, or misread a cut cache.
        """
        self._require_since(self._passed_before, "the model's forward")

    @contextmanager
    def under_generate(self, arguments: Mapping[str, Any]) -> Generator[None, None, None]:
        """For the time of one ``generate``; it also notices that the model's own hooks are gone."""
        before = self._passed
        yield
        if gives_visual(arguments):
            self._require_since(before, "generate")

    def _require_since(self, before: int, what: str) -> None:
        if self._passed == before:
            raise UnsupportedModeError(
                f"{what} ran around the session's hooks, so nothing was pruned: a forward was replaced, or hooks were "
                "removed; undo that, or detach the session to run the plain model"
            )
