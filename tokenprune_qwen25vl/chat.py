# SPDX-License-Identifier: Apache-2.0
"""Questions and clips to the inputs of the model; what makes them serves every model family."""

from __future__ import annotations

from tokenprune.hf.frontend.chat import Conversation, model_inputs, reading_fit

__all__ = ["Conversation", "model_inputs", "reading_fit"]
