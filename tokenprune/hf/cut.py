# SPDX-License-Identifier: Apache-2.0
"""What a selector does at its layer: the attention is watched before, tokens are scored and cut after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from tokenprune.adapter import AttentionReader, Removable
from tokenprune.protocols import TokenSelector
from tokenprune.runtime.narration import tell_scores
from tokenprune.runtime.prefill import reads_attention
from tokenprune.runtime.timing import Moment
from tokenprune.view import AttentionView

if TYPE_CHECKING:
    from tokenprune.hf.passage import Passage


class LayerCut:
    """One selector at its layer, in one prefill.

    Args:
        passage: the prefill's way through the decoder.
        selector: decides which visual tokens go on.
        layer: after which decoder layer.
    """

    def __init__(self, passage: Passage, selector: TokenSelector, layer: int) -> None:
        self.passage = passage
        self.selector = selector
        self.layer = layer
        self.cuts = False
        self.reader: AttentionReader | None = None
        self.watching: list[Removable] = []

    def before(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        """A hook before the layer: watch what its attention reads, if there will be anything to score."""
        prefill = self.passage.prefill
        self.cuts = prefill.will_cut(self.selector)
        if not (self.cuts and reads_attention(self.selector)):
            return
        self.reader = self.passage.carrier.reader(self.layer)
        rows = [places if cut else places[:0] for places, cut in zip(prefill.text_rows, self._rows_to_cut())]
        self.watching = list(self.reader.watch(rows))
        self.passage.hooks += self.watching

    def after(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        """A hook after it: score, decide, and hand on what stays."""
        prefill = self.passage.prefill
        self.passage.layers_ran(self.layer + 1)
        if not self.cuts:
            prefill.note_idle(self.selector, self.layer)
            return None
        for handle in self.watching:
            handle.remove()
        hidden = output if isinstance(output, Tensor) else output[0]
        begin = Moment.now(hidden.device)
        scores = [self._scores(row) if cut else None for row, cut in enumerate(self._rows_to_cut())]
        self.reader = None
        ragged = prefill.cut(self.selector, self.layer, scores, begin)
        shorter = self.passage.shorten_after(self.layer, hidden, ragged)
        prefill.stages[-1] = prefill.stages[-1].ending_now(hidden.device)
        return shorter if isinstance(output, Tensor) else (shorter, *output[1:])

    def _rows_to_cut(self) -> list[bool]:
        counts = self.passage.prefill.visual_counts(self.selector.modalities)
        return [self.selector.budget.count(count) < count for count in counts]

    def _scores(self, row: int) -> Tensor:
        prefill, handle = self.passage.prefill, self.passage.handle
        places, valid = prefill.scored_places(self.selector, row), prefill.stored().valid[row]
        view = AttentionView.unread(places, valid)
        if self.reader is not None:
            earlier_keys = None
            if prefill.earlier is not None and handle is not None:
                keys = handle.layer(self.layer).keys
                earlier_keys = None if keys is None else keys[row, :, : prefill.earlier.columns.shape[1]]
            view = self.reader.view(row, earlier_keys, valid, places)
        tell_scores(self.selector, self.layer, row, view)
        return self.selector.scorer.score(view)
