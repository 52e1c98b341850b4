# SPDX-License-Identifier: Apache-2.0
"""Questions about a clip whose cache was pressed before any of them was asked."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from tokenprune import attach
from tokenprune.bench.world_benchmark.answering import NEW_TOKENS, Answers, Seen, beginnings
from tokenprune.hf.cache import PrunableDynamicCache
from tokenprune.hf.frontend.family import Loaded
from tokenprune.hf.frontend.features import encoded_before
from tokenprune.hf.frontend.next_token import GREEDY
from tokenprune.hf.release import with_cache
from tokenprune.pipeline import Pipeline


@torch.inference_mode()
def answer_pressed(loaded: Loaded, seen: Seen, pipeline: Pipeline) -> Answers:
    """Answer questions about one clip greedily, each from a copy of the cache that the pipeline has pressed.

    The prefill ends with the first token after the clip, which is the same before every question; the rest of a prompt
    then continues it, so that even the first token of an answer is read from what was kept. An operator that rates by
    the last rows of text is shown that one token, and no question.

    Args:
        loaded: the model that has seen the clip.
        seen: from :func:`tokenprune.bench.world_benchmark.answering.see`.
        pipeline: ends with an operator on the finished cache.
    """
    prompts = [ids[mask.bool()][None] for ids, mask in zip(seen.inputs["input_ids"], seen.inputs["attention_mask"])]
    with attach(loaded.model, pipeline) as session, encoded_before(loaded.parts.tower, seen.features[0]):
        cache = PrunableDynamicCache(loaded.model.config.get_text_config())
        loaded.model(**with_cache(loaded.model, _up_to_the_question(seen), cache), use_cache=True)
        report = session.report
        _place_the_question(loaded, seen)
        begun = [_continued(loaded, ids, cache) for ids in prompts]
    if report is None:
        raise RuntimeError("the prefill of a clip left no report")
    rows = len(prompts)
    return Answers(tuple(begun), (report.layer_averaged_retained[0],) * rows, (report.visual_retained[0],) * rows)


def _up_to_the_question(seen: Seen) -> dict[str, Tensor]:
    """The first row's inputs as far as one token after its clip."""
    inputs = seen.inputs
    real = inputs["attention_mask"][0].bool()
    visual = inputs["mm_token_type_ids"][0][real].nonzero()
    end = int(visual[-1]) + 2
    found = {name: value[:1] for name, value in inputs.items() if name != "pixel_values_videos"}
    for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
        found[name] = found[name][:, real][:, :end]
    return {**found, "pixel_values_videos": inputs["pixel_values_videos"]}


def _place_the_question(loaded: Loaded, seen: Seen) -> None:
    """Let the model count a question's positions as in the whole prompt.

    It counts on from the largest position so far. Where a prompt ends with a clip that may be one in time, while the
    text after a clip is placed by the clip's height and width.
    """
    whole = {name: seen.inputs[name][:1] for name in ("video_grid_thw", "second_per_grid_ts") if name in seen.inputs}
    real = seen.inputs["attention_mask"][0].bool()
    ids, types = (seen.inputs[name][:1][:, real] for name in ("input_ids", "mm_token_type_ids"))
    library = loaded.parts.prompt
    _, library.rope_deltas = library.get_rope_index(ids, types, **whole)


def _continued(loaded: Loaded, ids: Tensor, cache: PrunableDynamicCache) -> tuple[str, ...]:
    """The beginnings of the answer to a whole prompt ``(1, L)`` whose first tokens are in the cache, which is left."""
    asked = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    given = with_cache(loaded.model, asked, copy.deepcopy(cache))
    output = loaded.model.generate(**given, max_new_tokens=NEW_TOKENS, **GREEDY.options())
    return beginnings(loaded, output[:, ids.shape[1] :])[0]
