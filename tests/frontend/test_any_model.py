# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of eight families, loaded from disk with their own processors and asked about a real video file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("av")
pytest.importorskip("torchvision")
pytest.importorskip("num2words")

import torch
from frontend.checkpoints import CHECKPOINTS, save
from typer.testing import CliRunner

import tokenprune as tp
from tokenprune.cli.app import app
from tokenprune.hf.frontend.auto import AUTO
from tokenprune.hf.frontend.loading import load, why_not
from tokenprune.hf.frontend.pixels import PixelOptions, bounds_whole_clips, makes_patches
from tokenprune.hf.frontend.video import load_clip
from tokenprune_qwen25vl.assets import demo_clip
from tokenprune_qwen25vl.family import QWEN25VL

FRAMES = 8
NEW = 12
QUESTION = "Why?"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Name -> directory of its checkpoint, saved on first use."""
    made: dict[str, Path] = {}

    def directory(name: str) -> Path:
        if name not in made:
            made[name] = save(name, tmp_path_factory.mktemp(name))
        return made[name]

    return directory


def asked(pruner: Any, question: str = QUESTION) -> Any:
    return pruner.generate(demo_clip(), question, NEW, frames=FRAMES)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_is_found_loaded_and_pruned(name: str, saved: Any) -> None:
    assert why_not(AUTO, str(saved(name))) is None
    half = tp.VLMPruner(saved(name), tp.Cover(keep_ratio=0.5), device="cpu")
    answer = asked(half)
    assert answer.visual_retained == 0.5
    plain, pruned = half.compare(demo_clip(), QUESTION, NEW, frames=FRAMES)
    assert pruned.token_ids == answer.token_ids  # encoded once or each time, it is the same
    whole = asked(tp.VLMPruner(model=half.model, processor=half.processor, pipeline=tp.Cover(keep_ratio=1.0)))
    assert whole.token_ids == plain.token_ids
    assert whole.token_ids != answer.token_ids
    one = asked(tp.VLMPruner(model=half.model, processor=half.processor, pipeline=tp.Cover(keep=1)))
    assert one.visual_retained == 1 / one.visual_tokens  # its frames are one video
    assert whole.visual_tokens == answer.visual_tokens


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_questions_of_one_batch_are_answered_as_alone(name: str, saved: Any) -> None:
    pruner = tp.VLMPruner(saved(name), [tp.STMerge(), tp.AttnPrune(layer=1, keep_ratio=0.5)], device="cpu")
    questions = [QUESTION, "And where is the one that was here before?"]
    together = pruner.generate_many(demo_clip(), questions, NEW, frames=FRAMES)
    for question, answer in zip(questions, together, strict=True):
        alone = asked(pruner, question)
        assert answer.token_ids[: len(alone.token_ids)] == alone.token_ids  # then it is padded
        assert answer.text == alone.text
        assert answer.visual_retained == alone.visual_retained < 1


def test_towers_of_patches_run_once_for_all_questions(saved: Any) -> None:
    pruner = tp.VLMPruner(saved("qwen3_vl"), tp.Cover(keep_ratio=0.5), device="cpu")
    patches: list[int] = []
    tower = pruner.model.model.visual
    with tower.register_forward_hook(lambda module, args, output: patches.append(len(output.last_hidden_state))):
        asked(pruner)
        pruner.generate_many(demo_clip(), [QUESTION, "Where?", "Who?"], 2, frames=FRAMES)
    few = int(tower.spatial_merge_size) ** 2
    assert patches[0] > few
    assert patches[1:] == [few, few]


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_frames_are_shown_as_the_model_saw_them(name: str, saved: Any) -> None:
    from tokenprune.answers import ClipQuestion
    from tokenprune.hf.frontend.runner import FamilyModel

    model = FamilyModel(load(AUTO, saved(name), "cpu"))
    prepared = model.prepare(ClipQuestion(str(demo_clip()), QUESTION, frames=FRAMES))
    pictures = model.pictures(prepared)
    assert (pictures.shape[0], pictures.shape[3]) == (FRAMES, 3)
    assert pictures.std() > 10  # a picture, not a wall


def test_the_command_line_runs_any_of_them(saved: Any) -> None:
    more = ["--model", str(saved("qwen3_vl")), "--frames", "8", "--max-new-tokens", "3", "--device", "cpu", "--json"]
    done = CliRunner().invoke(app, ["run", str(demo_clip()), QUESTION, *more])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["preset"] == "recommended"
    assert told["pipeline"] == tp.preset("recommended").to_dict()


def test_the_clip_of_another_adapter_is_shown_and_a_press_is_named_by_its_site(saved: Any) -> None:
    more = ["--model", str(saved("llava_onevision")), "--frames", "8", "--max-new-tokens", "2", "--device", "cpu"]
    done = CliRunner().invoke(app, ["run", "demo", QUESTION, *more, "--method", "KNorm", "--keep-ratio", "0.5"])
    assert done.exit_code == 0, done.output
    assert "KNorm after the prefill" in done.stdout


def test_speed_is_measured_where_it_is_known_how_a_clip_is_shown(saved: Any) -> None:
    small = ["--grid", "3x2x3", "--rounds", "1", "--warmup", "0", "--new-tokens", "1", "--device", "cpu", "--json"]
    done = CliRunner().invoke(app, ["bench", "--model", str(saved("qwen3_vl")), *small])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["setting"]["visual_tokens"] == 18
    for unknown in ("internvl", "glm4v"):
        refused = CliRunner().invoke(app, ["bench", "--model", str(saved(unknown)), *small])
        assert refused.exit_code == 1
        assert f"this one is '{unknown}'" in refused.stdout


def test_speed_of_square_frames_is_measured_on_their_own_grid_alone(saved: Any) -> None:
    told = ["bench", "--model", str(saved("llava_onevision")), "--rounds", "1", "--warmup", "0", "--device", "cpu"]
    refused = CliRunner().invoke(app, [*told, "--grid", "3x9x9"])
    assert refused.exit_code == 1
    [wanted] = re.findall(r"the grid must be (3x\d+x\d+), got 3x9x9", " ".join(refused.output.split()))
    done = CliRunner().invoke(app, [*told, "--grid", wanted, "--new-tokens", "1", "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["setting"]["visual_tokens"] == 3 * int(wanted.split("x")[1]) ** 2
    assert "eager baseline: default" in [row["name"] for row in result["rows"]]


def test_what_bounds_pixels_is_asked_of_the_processor(saved: Any) -> None:
    processors = {name: CHECKPOINTS[name]()[1].video_processor for name in CHECKPOINTS}
    of_patches = {name for name, processor in processors.items() if makes_patches(processor)}
    assert of_patches == {"qwen2_vl", "qwen3_vl", "video_llama_3", "glm4v"}
    whole = {name for name in of_patches if bounds_whole_clips(processors[name])}
    assert whole == {"qwen3_vl", "video_llama_3", "glm4v"}
    options = PixelOptions(processors["qwen3_vl"], 5000)
    assert options.for_clips([8, 8])["size"]["longest_edge"] == 8 * 5000
    with pytest.raises(tp.InvalidValueError, match="equally many frames"):
        options.for_clips([8, 4])
    with pytest.raises(tp.InvalidValueError, match="shows all frames in one size"):
        PixelOptions(processors["internvl"], 5000)


def test_bounded_frames_cost_fewer_tokens(saved: Any) -> None:
    pruner = tp.VLMPruner(saved("qwen3_vl"), tp.Cover(keep_ratio=1.0), device="cpu")
    usual = asked(pruner).visual_tokens
    bounded = pruner.generate(demo_clip(), QUESTION, 2, frames=FRAMES, max_pixels=32 * 32).visual_tokens
    assert bounded == FRAMES // 2 < usual


def test_what_no_adapter_knows_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    from transformers import AutoConfig

    config = AutoConfig.for_model(
        "gemma3", text_config={"num_hidden_layers": 2}, vision_config={"num_hidden_layers": 1}
    )
    config.save_pretrained(tmp_path)
    with pytest.raises(tp.NoAdapterError, match=r"can make it, but no adapter accepts .*4-D attention masks"):
        tp.VLMPruner(tmp_path)


@pytest.mark.parametrize("kind", ["qwen2", "made_up_vl", None])
def test_what_sees_nothing_is_named_by_its_type(tmp_path: Path, kind: str | None) -> None:
    (tmp_path / "config.json").write_text(json.dumps({} if kind is None else {"model_type": kind}))
    with pytest.raises(tp.NoAdapterError, match=f"no model of type {kind!r} in release .* sees images or videos"):
        tp.VLMPruner(tmp_path)


def test_a_name_that_is_released_is_not_guessed_at(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(source: str) -> Any:
        raise OSError("no connection")

    monkeypatch.setattr("transformers.PretrainedConfig.get_config_dict", unreachable)
    for family in (AUTO, QWEN25VL):
        with pytest.raises(tp.ModelLoadError, match=r"Qwen/Qwen3-VL-8B-Instruct: no connection$"):
            load(family, "Qwen/Qwen3-VL-8B-Instruct")
        with pytest.raises(tp.ModelLoadError, match=r"did you mean 'Qwen/Qwen3-VL-8B-Instruct'\?$"):
            load(family, "Qwen/Qwen3-VL-8B-Instrut")


def test_a_processor_without_a_chat_template_is_named(saved: Any) -> None:
    pruner = tp.VLMPruner(saved("qwen3_vl"), device="cpu")
    pruner.processor.chat_template = None
    with pytest.raises(tp.InvalidValueError, match="Qwen3VLProcessor has no chat template"):
        asked(pruner)


def test_a_clip_in_memory_is_asked_about_like_its_file(saved: Any) -> None:
    pruner = tp.VLMPruner(saved("llava_onevision"), tp.Cover(keep_ratio=0.5), device="cpu")
    clip = load_clip(demo_clip(), frames=FRAMES)
    assert pruner.generate(clip, QUESTION, NEW).token_ids == asked(pruner).token_ids
    plain, pruned = pruner.compare(clip, QUESTION, 2)
    assert len(plain.token_ids) == len(pruned.token_ids) == 2
    with pytest.raises(tp.InvalidValueError, match="frames and fps are for files"):
        pruner.generate(clip, QUESTION, frames=4)
    for video in (None, clip.frames, [demo_clip()]):
        with pytest.raises(tp.InvalidValueError, match="video_path must be a path, or a clip"):
            pruner.generate(video, QUESTION)


def test_bad_calls_are_refused(saved: Any) -> None:
    with pytest.raises(tp.InvalidValueError, match="model_path"):
        tp.VLMPruner()
    with pytest.raises(tp.ModelLoadError):
        tp.VLMPruner("no/such/directory")
    with pytest.raises(tp.ModelLoadError, match="its name is empty"):
        tp.VLMPruner("")
    pruner = tp.VLMPruner(saved("qwen3_vl"), "stage1_only", device="cpu")
    with pytest.raises(tp.InvalidValueError, match="processor must be the checkpoint's own"):
        tp.VLMPruner(model=pruner.model, processor=pruner.processor.tokenizer)
    with pytest.raises(tp.InvalidValueError, match="at least one question"):
        pruner.generate_many(demo_clip(), [])
    with pytest.raises(tp.VideoError, match="so few frames"):
        pruner.generate(demo_clip(), QUESTION, frames=1)
    assert not any(module._forward_hooks for module in pruner.model.modules())
    assert torch.is_grad_enabled()
