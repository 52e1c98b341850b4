# SPDX-License-Identifier: Apache-2.0
"""Made-up decoder layers: what an operator inside the LLM, or a press on its cache, may read of a clip's tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from .clips import Clip, areas_clip, method_clips

Which = Literal["last", "text"] | int

HEADS, KV_HEADS, HEAD_DIM, TEXT_ROWS = 4, 2, 4, 6


@dataclass(frozen=True)
class Seen:
    """One prompt row in one layer: text, the video with a text token after each frame, the question. All float32.

    Args:
        name: of the clip.
        grid: (T, H, W).
        features: (N, D) hidden states of the visual tokens after the layer.
        before: (N, D) the same before the layer.
        embeddings: (N, D) as they entered the LLM.
        text: (R, D) embeddings of the text after the video.
        text_features: (R, D) hidden states of that text after the layer.
        queries: (heads, R, d) of the text after the video, as the layer multiplies them with keys.
        keys: (kv_heads, L, d) of the whole row.
        values: (kv_heads, L, d).
        visual_columns: where in the row the N visual tokens stand.
        text_rows: where the R text tokens after them stand.
    """

    name: str
    grid: tuple[int, int, int]
    features: np.ndarray
    before: np.ndarray
    embeddings: np.ndarray
    text: np.ndarray
    text_features: np.ndarray
    queries: np.ndarray
    keys: np.ndarray
    values: np.ndarray
    visual_columns: list[int]
    text_rows: list[int]

    @property
    def visual_keys(self) -> np.ndarray:
        """(kv_heads, N, d)."""
        return self.keys[:, self.visual_columns]

    @property
    def visual_values(self) -> np.ndarray:
        """(kv_heads, N, d)."""
        return self.values[:, self.visual_columns]

    @property
    def text_keys(self) -> np.ndarray:
        """(kv_heads, R, d) of the text after the video."""
        return self.keys[:, self.text_rows]

    def rows(self, which: Which) -> np.ndarray:
        """(heads, r, N) float64: with what probability text rows attend to visual columns, every visible key counted.

        ``which``: the last row, all of the text after the video, or the last so many (all, where there are fewer).
        """
        if which == "text":
            return self._rows
        return self._rows[:, -(1 if which == "last" else which) :]

    def next_layer(self) -> Seen:
        """The layer after this one: other queries and keys; what it makes of the states is not known yet."""
        return replace(self, before=self.features, queries=self.queries[:, ::-1].copy(), keys=self.keys[::-1].copy())

    def layer_before(self) -> Seen:
        """The layer that left what this one began with."""
        return replace(self, features=self.before, queries=self.queries[::-1].copy())

    def left(self, there: list[int]) -> Seen:
        """The same row where only these visual tokens are left; they fill no grid any more and are a list."""
        gone = {column for i, column in enumerate(self.visual_columns) if i not in set(there)}
        columns = [column for column in range(self.keys.shape[1]) if column not in gone]
        return replace(
            self,
            grid=(len(there), 1, 1),
            features=self.features[there],
            before=self.before[there],
            embeddings=self.embeddings[there],
            keys=self.keys[:, columns],
            values=self.values[:, columns],
            visual_columns=[columns.index(self.visual_columns[i]) for i in there],
            text_rows=[columns.index(row) for row in self.text_rows],
        )

    @cached_property
    def _rows(self) -> np.ndarray:
        result = np.zeros((len(self.queries), len(self.text_rows), len(self.visual_columns)))
        for head in range(len(self.queries)):
            keys = self.keys[head // (len(self.queries) // len(self.keys))].astype(np.float64)
            for r, place in enumerate(self.text_rows):
                query = self.queries[head, r].astype(np.float64)
                logits = [float(query @ key) / math.sqrt(len(query)) for key in keys[: place + 1]]
                weights = [math.exp(value - max(logits)) for value in logits]
                for i, column in enumerate(self.visual_columns):
                    result[head, r, i] = weights[column] / math.fsum(weights)
        return result


def seen(clip: Clip) -> Seen:
    """A layer made up for the clip; tokens of an "all-..." clip are alike in everything."""
    frames, height, width = clip.grid
    n, dim = clip.features.shape
    places = height * width
    visual = [2 + t * (places + 1) + p for t in range(frames) for p in range(places)]
    text = [2 + frames * (places + 1) + r for r in range(TEXT_ROWS)]
    generator = np.random.default_rng(1000 + n)

    def drawn(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape)

    def of_each_token(channels: int) -> np.ndarray:
        alike = clip.name.startswith("all-")
        return np.broadcast_to(drawn(1 if alike else n, channels), (n, channels))

    def single(values: np.ndarray) -> np.ndarray:
        return values.astype(np.float32)

    states = clip.features.astype(np.float64)
    change = of_each_token(dim) * np.exp(0.5 * of_each_token(1))
    keys, values = drawn(2, KV_HEADS, text[-1] + 1, HEAD_DIM)
    for head in range(KV_HEADS):
        keys[head, visual] = states @ drawn(dim, HEAD_DIM) / math.sqrt(dim)
        values[head, visual] = states @ drawn(dim, HEAD_DIM) / math.sqrt(dim)
    return Seen(
        clip.name,
        clip.grid,
        clip.features,
        single(states - 0.2 * change),
        single(states @ drawn(dim, dim) / math.sqrt(dim)),
        single(drawn(TEXT_ROWS, dim)),
        single(drawn(TEXT_ROWS, dim)),
        single(drawn(HEADS, TEXT_ROWS, HEAD_DIM)),
        single(keys),
        single(values),
        visual,
        text,
    )


def method_layers() -> list[Seen]:
    """A made-up layer for each of the small clips, and for one whose frames are large enough to be pooled twice."""
    return [seen(clip) for clip in [*method_clips(), areas_clip((4, 6, 7), 6, 48)]]
