# SPDX-License-Identifier: Apache-2.0
"""Thinkers of Qwen-Omni: audio stands before and after a video, and what would put it inside is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

pytest.importorskip("transformers")

import transformers
from families.layouts import AUDIO, CLOSE, END, OPEN, START, VIDEO
from families.tiny import CASES, Tiny, new_model, timed_patches, tiny_model

import tokenprune as tp
from tokenprune.adapter import Prompt, VisualSpan
from tokenprune.errors import NoAdapterError, UnsupportedModeError
from tokenprune.hf.families.declined import DECLINED
from tokenprune.plugins import find_adapter
from tokenprune.testing import VisualPrompt
from tokenprune.testing.masking import Removal, masked_logits
from tokenprune.testing.runs import require_close

OMNI = [case for case in CASES if case.pixels is timed_patches and case.model_class is not None]
over_thinkers = pytest.mark.parametrize("case", OMNI, ids=str)
GRID = (3, 2, 3)
HEARD = 12
"""Steps of sound in an audio; its tokens are counted by the library."""


def audio_tokens(case: Tiny) -> int:
    """Tokens of such an audio: two convolutions of stride 2, or three."""
    return 3 if case.family.name.startswith("qwen2") else 2


def heard(case: Tiny) -> Any:
    """A model whose id for the start of an audio can stand in a prompt."""
    return new_model(replace(case, config={**case.config, "audio_start_token_id": OPEN}))


def spoken(case: Tiny, order: Sequence[str]) -> VisualPrompt:
    """One row with a video and audios around it."""
    draw = torch.Generator().manual_seed(3)
    ids: list[int] = [1, 2, 3]
    columns: list[int] = []
    for part in order:
        if part == "audio":
            ids += [OPEN, *[AUDIO] * audio_tokens(case), CLOSE, 7]
        else:
            columns = list(range(len(ids) + 1, len(ids) + 19))
            ids += [START, *[VIDEO] * 18, END, 8, 9]
    audios = order.count("audio")
    t, h, w = GRID
    inputs: dict[str, Any] = {
        "input_ids": torch.tensor([ids]),
        "attention_mask": torch.ones(1, len(ids), dtype=torch.long),
        "pixel_values_videos": torch.randn(t * h * w * 4, case.patch, generator=draw),
        "video_grid_thw": torch.tensor([[t, 2 * h, 2 * w]]),
        "video_second_per_grid": torch.ones(1),
        "input_features": torch.randn(audios, 8, HEARD, generator=draw),
        "feature_attention_mask": torch.ones(audios, HEARD, dtype=torch.long),
    }
    return VisualPrompt(inputs, [[VisualSpan("video", GRID, torch.tensor(columns))]])


@over_thinkers
@pytest.mark.parametrize("order", [("audio", "video"), ("video", "audio"), ("audio", "video", "audio")], ids="-".join)
def test_audio_beside_a_video_stays(case: Tiny, order: tuple[str, ...]) -> None:
    """Removal equals masking, and every token of audio is kept."""
    model, given = heard(case), spoken(case, order)
    with tp.attach(model, tp.AttnPrune(layer=1, keep_ratio=0.5)) as session, torch.no_grad():
        found = model(**given.inputs).logits[:, -1]
    assert session.report is not None
    assert session.report.visual_tokens == [18]
    kept = given.input_ids[0, session.report.kept[0]]
    assert int((kept == AUDIO).sum()) == order.count("audio") * audio_tokens(case)
    removal = Removal.of(given, None, session.report, 1)
    text = model.get_submodule(case.family.placed(model).text)
    truth = masked_logits(model, text, given, given.input_ids[:, :0], removal, case.family.carried)
    require_close(found, truth[:, -1], "logits", 1e-4)


@over_thinkers
def test_an_answer_to_a_prompt_with_audio(case: Tiny) -> None:
    model, given = heard(case), spoken(case, ("audio", "video"))
    options = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None, "pad_token_id": 254}
    plain = model.generate(**given.inputs, **options)
    with tp.attach(model, tp.Pipeline([tp.AttnPrune(layer=1, keep_ratio=1.0)])):
        assert torch.equal(model.generate(**given.inputs, **options), plain)
    with tp.attach(model, tp.Cover(keep_ratio=0.5)) as session:
        model.generate(**given.inputs, **options)
    assert session.report is not None
    assert session.report.visual_tokens == [18]
    assert len(session.report.kept[0]) == given.length - 9


@over_thinkers
@pytest.mark.parametrize("asked", ["use_audio_in_video", "output_hidden_states"])
def test_what_is_refused_before_anything_runs(case: Tiny, asked: str) -> None:
    model, given = tiny_model(case), spoken(case, ("video",))
    inputs = {name: value for name, value in given.inputs.items() if "feature" not in name}
    ran: list[nn.Module] = []
    handle = model.get_submodule(case.family.placed(model).tower).register_forward_hook(lambda m, *_: ran.append(m))
    try:
        with tp.attach(model, tp.Cover(keep_ratio=0.5)):
            with pytest.raises(UnsupportedModeError, match=f"{asked} cannot be combined with pruning"):
                model(**inputs, **{asked: True})
            with pytest.raises(UnsupportedModeError, match=f"{asked} cannot be combined with pruning"):
                model.generate(**inputs, max_new_tokens=2, **{asked: True})
            assert not ran
            model(**inputs, **{asked: False})
        assert ran
    finally:
        handle.remove()


@over_thinkers
def test_audio_between_the_frames_is_refused_though_nobody_says_so(case: Tiny) -> None:
    """The ids tell: whoever forgets ``use_audio_in_video`` gets positions that the prompt was not written for."""
    model, given = tiny_model(case), spoken(case, ("video",))
    ids = given.input_ids.clone()
    ids[0, 10] = AUDIO
    adapted = find_adapter(model)
    with pytest.raises(UnsupportedModeError, match="directly beside audio"):
        adapted.boundaries(Prompt(ids, torch.zeros(3, 1, ids.shape[1]), torch.ones_like(ids).bool()))


@pytest.mark.parametrize("name", [name for name in DECLINED if "Omni" in name and hasattr(transformers, name)])
def test_a_whole_omni_is_declined_and_its_thinker_named(name: str) -> None:
    kind = getattr(transformers, name)
    whole = kind.__new__(kind)
    nn.Module.__init__(whole)
    whole.thinker = tiny_model(OMNI[0])
    with pytest.raises(NoAdapterError, match=r"attach to model\.thinker"):
        find_adapter(whole)
    assert find_adapter(whole.thinker).name == "families"
