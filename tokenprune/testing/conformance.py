# SPDX-License-Identifier: Apache-2.0
"""The laws of adapters, as a pytest class to subclass."""

from __future__ import annotations

from tokenprune.testing.adapter_reading import ReadingLaws
from tokenprune.testing.adapter_removal import RemovalLaws
from tokenprune.testing.adapter_session import SessionLaws


class AdapterConformance(ReadingLaws, RemovalLaws, SessionLaws):
    """Subclass it, name the subclass ``Test...``, and fill in the three methods; pytest does the rest.

    The model is tiny, in fp32, in eval mode and on the CPU. Rows differ in length and hold a video each, or some of
    them; each video has at least 6 tokens and text after it.

    >>> class TestMine(AdapterConformance):
    ...     rows = 3  # and the three methods
    >>> [name for name in dir(TestMine) if name.startswith("test_visual")]
    ['test_visual_tokens_are_found']

    Attributes:
        rows: how many rows :meth:`make_prompt` knows, at least 2.
        images: whether some row holds images that the adapter reads.
        attention_weights: whether the model can be asked for attention weights (``output_attentions``, eager).
        recurrent: in a layer without attention to cut, the attribute that holds its recurrent mixer (``linear_attn``);
            empty: every layer attends. Such layers run on the tokens that are there.
        needs_mask: whether the model makes its visual positions of the padding mask; without one it is then refused.
        tolerance: largest difference of logits, relative to the largest of them, that counts as rounding.
        carried: what the adapter declares to travel with the tokens (:class:`tokenprune.carried.Carried`).
    """
