# SPDX-License-Identifier: Apache-2.0
"""Video models of the library that cannot be pruned rightly today, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping

_SLIDING = "layers with a sliding window hold the last slots and mask by their distance, which shrinks with removal"
_MASK = "its 4-D attention masks are made before the decoder is called, where no token has gone yet"
_INDEXED = "attention over indexed keys stores more than keys and values of a token"
_TALKER = (
    "its talker reads the hidden states of every token of the thinker; attach to model.thinker, which answers in text"
)
_SLICES = "frames come in slices of native resolution, whose layout has not been tried"

DECLINED: Mapping[str, str] = {
    "Gemma3ForConditionalGeneration": _MASK,
    "Gemma3nForConditionalGeneration": "later layers take keys and values from earlier ones",
    "Gemma4ForConditionalGeneration": "later layers take keys and values from earlier ones, and " + _MASK,
    "Gemma4UnifiedForConditionalGeneration": "later layers take keys and values from earlier ones, and " + _MASK,
    "Molmo2ForConditionalGeneration": _MASK,
    "Exaone4_5_ForConditionalGeneration": _SLIDING,
    "MuseGlimmerForConditionalGeneration": _SLIDING,
    "MuseSparkForConditionalGeneration": _SLIDING,
    "MiniCPMV4_6ForConditionalGeneration": _SLICES,
    "MiniCPMV4_7ForConditionalGeneration": _SLICES,
    "Lfm3VlForConditionalGeneration": "convolution layers keep a state instead of tokens",
    "Qwen4ExpForConditionalGeneration": _INDEXED,
    "Glm5NextForConditionalGeneration": _INDEXED,
    "Dots3NoteForConditionalGeneration": _INDEXED,
    "HYV4VLForConditionalGeneration": _INDEXED,
    "Kimi_K25ForConditionalGeneration": "its attention is latent: there are no keys of a head to be read",
    "Qwen2_5OmniForConditionalGeneration": _TALKER,
    "Qwen3OmniMoeForConditionalGeneration": _TALKER,
    "InstructBlipVideoForConditionalGeneration": "32 query tokens stand for a frame: there is nothing to remove",
}
"""Name of the library's class with a language head -> why its models are declined."""
