# SPDX-License-Identifier: Apache-2.0
"""The example adapter, installed as a real package, keeps the laws of adapters on a tiny random LLaVA-OneVision."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("transformers")
pytest.importorskip("hatchling")

import tokenprune as tp
from tokenprune.adapter import VisualSpan
from tokenprune.hf.forward import PrefillForward
from tokenprune.plugins import find_adapter, reset_plugins
from tokenprune.testing import AdapterConformance, LawBrokenError, VisualPrompt

PACKAGE = Path(__file__).parents[2] / "docs" / "examples" / "tokenprune-llava-onevision"
MODULE = "tokenprune_llava_onevision"
IMAGE, VIDEO = 250, 251
SIDE, POOLED, FRAMES = 5, 3, 3
"""Patches along an image's side; tokens along a frame's; frames of each video."""

pytestmark = pytest.mark.usefixtures("installed")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The example, installed by pip into a folder of its own and found by its entry point."""
    target = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "-q"]
    subprocess.run([*pip, "--target", str(target), str(PACKAGE)], check=True, capture_output=True)
    sys.path.insert(0, str(target))
    importlib.invalidate_caches()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKENPRUNE_PLUGINS", "llava_onevision")  # the table of families knows more language models
        reset_plugins()
        yield target
    sys.path.remove(str(target))
    for name in [name for name in sys.modules if name.split(".")[0] == MODULE]:
        del sys.modules[name]
    reset_plugins()


@lru_cache
def tiny_model(**text: Any) -> Any:
    """fp32 on the CPU; weights are spread wide, so that a wrong token or position shows in the answer."""
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

    config = LlavaOnevisionConfig(
        text_config={
            "model_type": "qwen2",
            "vocab_size": 256,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "bos_token_id": 252,
            "eos_token_id": 253,
            "pad_token_id": 254,
            **text,
        },
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 20,
            "patch_size": 4,
            "vision_use_head": False,
        },
        image_token_index=IMAGE,
        video_token_index=VIDEO,
        image_grid_pinpoints=[[20, 20], [20, 40], [40, 20]],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlavaOnevisionForConditionalGeneration(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0.0, 0.3)
    return model


ROWS: list[list[int | str]] = [
    [3, "video", 5],
    [1, "image", 2, "image", 3, "video", 4],
    [2, "video", 2, "video", 6],
    [9],
]
"""So many text tokens, or a video or image."""
GRIDS = {"video": (FRAMES, POOLED, POOLED), "image": (1, SIDE, SIDE)}


def build(rows: Sequence[list[int | str]], seeds: Sequence[int]) -> VisualPrompt:
    """A batch as the processor makes it: each video and image is a run of placeholders, its newline included."""
    built: list[tuple[list[int], list[tuple[str, int]]]] = []
    pixels: dict[str, list[Tensor]] = {"video": [], "image": []}
    for parts, seed in zip(rows, seeds):
        draw = torch.Generator().manual_seed(seed)
        ids: list[int] = []
        spans: list[tuple[str, int]] = []
        for part in parts:
            if isinstance(part, int):
                ids += torch.randint(0, 200, (part,), generator=draw).tolist()
                continue
            spans.append((part, len(ids)))
            frames, height, width = GRIDS[part]
            ids += [VIDEO if part == "video" else IMAGE] * (frames * height * width + 1)
            pixels[part].append(torch.randn(frames, 3, 20, 20, generator=draw))
        built.append((ids, spans))
    length = max(len(ids) for ids, _ in built)
    inputs: dict[str, Any] = {
        "input_ids": torch.tensor([[254] * (length - len(ids)) + ids for ids, _ in built]),
        "attention_mask": torch.tensor([[0] * (length - len(ids)) + [1] * len(ids) for ids, _ in built]),
    }
    if pixels["video"]:
        inputs["pixel_values_videos"] = torch.stack(pixels["video"])
    if pixels["image"]:
        inputs["pixel_values"] = torch.cat(pixels["image"])
        inputs["image_sizes"] = torch.tensor([[20, 20]] * len(pixels["image"]))
        inputs["batch_num_images"] = torch.tensor([sum(name == "image" for name, _ in spans) for _, spans in built])
    return VisualPrompt(inputs, [[_span(name, length - len(ids) + at) for name, at in spans] for ids, spans in built])


def _span(name: str, column: int) -> VisualSpan:
    frames, height, width = GRIDS[name]
    return VisualSpan(name, GRIDS[name], torch.arange(column, column + frames * height * width))


class TestLlavaOnevision(AdapterConformance):
    rows = len(ROWS)
    images = True

    def make_model(self) -> Any:
        return tiny_model()

    def decoder(self, model: Any) -> nn.Module:
        return model.model.language_model

    def make_prompt(self, rows: Sequence[int]) -> VisualPrompt:
        return build([ROWS[row] for row in rows], rows)


def test_the_package_is_listed() -> None:
    [info] = [info for info in tp.list_plugins() if info.name == "llava_onevision"]
    assert (info.status, info.distribution, info.version) == ("ok", "tokenprune-llava-onevision", "0.1.0")


def test_a_package_of_its_own_goes_before_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENPRUNE_PLUGINS", "llava_onevision,families")
    reset_plugins()
    assert find_adapter(tiny_model()).name == "llava_onevision"
    assert find_adapter(tiny_model(model_type="llama")).name == "families"
    monkeypatch.undo()
    reset_plugins()


def test_the_newline_of_a_video_is_text() -> None:
    given = build([ROWS[0]], [0])
    with tp.attach(tiny_model(), tp.Pipeline([tp.AttnPrune(layer=1, keep=1)])) as session, torch.no_grad():
        tiny_model()(**given.inputs)
    newline = 3 + FRAMES * POOLED * POOLED
    assert given.input_ids[0, newline] == VIDEO
    assert newline in session.report.kept[0].tolist()
    assert session.report.visual_tokens == [FRAMES * POOLED * POOLED]


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_given_positions_are_not_renumbered_nor_taken_for_packed_sequences(masked: bool, use_cache: bool) -> None:
    """A shortened 1-D sequence has gaps, which without mask and cache the library would read as packing."""
    model, given = tiny_model(), build([ROWS[0]], [0])
    positions = torch.arange(given.length).unsqueeze(0)
    inputs = {name: value for name, value in given.inputs.items() if masked or name != "attention_mask"}
    pipeline = tp.Pipeline([tp.UniformSelect(keep_ratio=0.5), tp.AttnPrune(layer=1, keep=4)])
    with tp.attach(model, pipeline), torch.no_grad():
        expected = model(**given.inputs).logits[:, -1]
        found = model(**inputs, position_ids=positions, use_cache=use_cache).logits[:, -1]
        shifted = model(**inputs, position_ids=positions + 7, use_cache=use_cache).logits[:, -1]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(shifted, expected, rtol=1e-3, atol=1e-3)  # only distances count


@pytest.mark.parametrize("name", ["dropping", "both"])
def test_the_law_notices_when_gaps_are_taken_for_packing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PrefillForward, "_mask_2d", lambda self, base: None)
    with pytest.raises(LawBrokenError, match=r"^a-forward-without-mask-or-cache: logits of a bare forward differ"):
        TestLlavaOnevision().test_a_forward_without_mask_or_cache(name, use_cache=False)


def test_two_videos_without_text_between_are_refused() -> None:
    given = build([[2, "video", "video", 3]], [0])
    with (
        tp.attach(tiny_model(), tp.Pipeline([tp.AttnPrune(layer=1, keep=1)])),
        pytest.raises(tp.UnsupportedModeError, match="put text between two videos"),
    ):
        tiny_model()(**given.inputs)


def test_an_image_in_tiles_is_refused() -> None:
    tokens = SIDE * SIDE + SIDE * (2 * SIDE + 1)
    ids = torch.tensor([[5, *[IMAGE] * tokens, 6, 7]])
    images = {"pixel_values": torch.randn(1, 3, 3, 20, 20), "image_sizes": torch.tensor([[20, 40]])}
    model = tiny_model()
    with torch.no_grad():
        model(input_ids=ids, **images)  # the model itself takes it
        with (
            tp.attach(model, tp.Pipeline([tp.AttnPrune(layer=1, keep=1)])),
            pytest.raises(tp.UnsupportedModeError, match=f"{tokens} image tokens at column 1 of row 0.*anyres"),
        ):
            model.generate(input_ids=ids, **images, max_new_tokens=1)


def test_other_language_models_and_sliding_windows_are_declined() -> None:
    with pytest.raises(tp.NoAdapterError, match="llava_onevision: its language model is a LlamaModel"):
        tp.attach(tiny_model(model_type="llama"), tp.Pipeline())
    with pytest.raises(tp.NoAdapterError, match="llava_onevision: the decoder has sliding-window layers"):
        tp.attach(tiny_model(use_sliding_window=True, max_window_layers=2, sliding_window=8), tp.Pipeline())
    with pytest.raises(tp.NoAdapterError, match="Linear does not hold exactly one Llava"):
        tp.attach(nn.Linear(1, 1), tp.Pipeline())


def test_the_example_is_short() -> None:
    lines = [line for path in sorted((PACKAGE / MODULE).glob("*.py")) for line in path.read_text().splitlines()]
    assert 0 < len(lines) < 150


@pytest.mark.parametrize(
    "name", ["pyproject.toml", *(f"{MODULE}/{name}.py" for name in ("models", "boundaries", "plugin"))]
)
def test_the_guide_shows_the_package_as_it_is(name: str) -> None:
    guide = (PACKAGE.parents[1] / "guides" / "writing-an-adapter.md").read_text()
    shown = (PACKAGE / name).read_text().removeprefix("# SPDX-License-Identifier: Apache-2.0\n").strip()
    assert f'title="{Path(name).name}"\n{shown}\n```' in guide
