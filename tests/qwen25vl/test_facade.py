# SPDX-License-Identifier: Apache-2.0
"""``Qwen25VLPruneVid``: its counts are the session's, its plain answers the library's, and a video is encoded once."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("torchvision")
pytest.importorskip("av")

from qwen25vl.tiny import LAYERS, build_processor, save_tiny, tiny_model, tiny_processor

import tokenprune as tp
from tokenprune_qwen25vl import Qwen25VLPruneVid, Sampling
from tokenprune_qwen25vl.chat import Conversation, model_inputs
from tokenprune_qwen25vl.video import load_clip

BUNNY = Path(__file__).parents[1] / "data" / "bigbuckbunny.mp4"
COUNTS = ("tokens_before_stage1", "tokens_after_stage1", "tokens_before", "tokens_after", "total_compression_ratio")


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model()


@pytest.fixture
def make(model: Any) -> Any:
    def build(**options: Any) -> Qwen25VLPruneVid:
        return Qwen25VLPruneVid(model=model, processor=tiny_processor(), **{"pruning_layer": 1, **options})

    return build


@contextmanager
def looks(model: Any) -> Iterator[list[int]]:
    """Visual tokens of each run of the vision tower that looks at more than one."""
    seen: list[int] = []

    def count(module: Any, args: Any) -> None:
        if len(args[0]) > 4:
            seen.append(len(args[0]) // 4)

    handle = model.model.visual.patch_embed.register_forward_pre_hook(count)
    try:
        yield seen
    finally:
        handle.remove()


def plain_text(model: Any, question: str, new_tokens: int, system: str | None = None, **look: Any) -> str:
    """The processor and the library's own generate, nothing of ours in between."""
    processor = tiny_processor()
    clip = load_clip(BUNNY, **look)
    inputs = model_inputs(processor, [Conversation(question, (clip,), system)])
    output = model.generate(**inputs, max_new_tokens=new_tokens, do_sample=False)
    return processor.tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


# Switches and counts


def test_the_defaults_are_the_default_preset(model: Any) -> None:
    assert Qwen25VLPruneVid(model=model, processor=tiny_processor()).pipeline == tp.preset("default")


def test_all_three_stages(make: Any) -> None:
    got = make().generate(BUNNY, "What?", 4, frames=12)
    assert [stage["operator"] for stage in got.report.stages] == ["STMerge", "AttnPrune"]
    assert got.tokens_before_stage1 > got.tokens_after_stage1 == got.tokens_before > got.tokens_after >= 1
    assert got.tokens_before_stage1 == got.report.visual_tokens[0]
    assert got.tokens_after == len(got.report.sources[0])
    assert got.tokens_after == -(-got.tokens_before * 2 // 5)  # 0.4, rounded up
    assert got.total_compression_ratio == pytest.approx(1 - got.tokens_after / got.tokens_before_stage1)
    assert got.report.kv_bytes < got.report.kv_bytes_unpruned


def test_stage_1_only(make: Any) -> None:
    got = make(enable_pruning=False).generate(BUNNY, "What?", 2, frames=12)
    assert [stage["site"] for stage in got.report.stages] == ["before_llm"]
    assert got.tokens_before_stage1 > got.tokens_after_stage1 == got.tokens_before == got.tokens_after
    assert got.total_compression_ratio == pytest.approx(1 - got.tokens_after / got.tokens_before_stage1)


def test_stages_2_and_3_only(make: Any) -> None:
    got = make(enable_stage1=False, keep_ratio=0.25).generate(BUNNY, "What?", 2, frames=12)
    assert [stage["site"] for stage in got.report.stages] == ["after_layer"]
    assert got.tokens_before_stage1 == got.tokens_after_stage1 == got.tokens_before
    assert got.tokens_after == -(-got.tokens_before // 4)


def test_parameters_reach_the_operators(make: Any) -> None:
    chosen = make(tau=0.9, cluster_ratio=0.8, temporal_segment_ratio=0.5, keep_ratio=0.6, pruning_layer=2)
    merge, prune = tp.STMerge(0.9, 0.8, 0.5), tp.AttnPrune(layer=2, keep_ratio=0.6)
    assert chosen.pipeline == tp.Pipeline([merge, prune])


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_everything_off_is_the_plain_model(make: Any, model: Any, system: str | None) -> None:
    off = make(enable_stage1=False, enable_pruning=False)
    got = off.generate(BUNNY, "What moves?", 12, frames=8, system=system)
    assert got.generated_text == plain_text(model, "What moves?", 12, system, frames=8)
    assert len(got.generated_text) > 3
    assert got.total_compression_ratio == 0.0
    assert len({getattr(got, name) for name in COUNTS[:4]}) == 1


def test_a_pruned_answer_is_that_of_attach(make: Any, model: Any) -> None:
    facade = make()
    inputs = model_inputs(tiny_processor(), [Conversation("What moves?", (load_clip(BUNNY, frames=8),))])
    with tp.attach(model, facade.pipeline) as session:
        output = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    text = tiny_processor().tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    got = facade.generate(BUNNY, "What moves?", 12, frames=8)
    assert got.generated_text == text.strip() != plain_text(model, "What moves?", 12, frames=8)
    assert torch.equal(got.report.kept[0], session.report.kept[0])


def test_fields_can_be_read_as_keys(make: Any) -> None:
    got = make().generate(BUNNY, "What?", 2, frames=4)
    for name in ("generated_text", *COUNTS, "report"):
        assert got[name] is getattr(got, name)
    assert {**got}.keys() == set(got.keys())
    with pytest.raises(KeyError):
        got["keys"]
    assert len(repr(got)) < 500


# One video, many questions


def test_many_questions_encode_a_video_once(make: Any, model: Any) -> None:
    facade = make()
    with looks(model) as seen:
        first = facade.generate(BUNNY, "What?", 3, frames=8)
        facade.generate(str(BUNNY), "And what moves over there?", 3, frames=8)
        facade.generate_many(BUNNY, ["Why?", "Where is it going to?", "Who?"], 3, frames=8)
        facade.process_egoschema_sample(BUNNY, "What?", ["a", "b"], frames=8)
    assert seen == [first.tokens_before_stage1]


@pytest.mark.parametrize("switches", [{}, {"enable_stage1": False, "enable_pruning": False}])
def test_a_batch_answers_like_its_rows(make: Any, switches: dict[str, bool]) -> None:
    facade = make(**switches)
    questions = ["Why?", "Where is the large animal going to?", "Who?"]
    together = facade.generate_many(BUNNY, questions, 8, frames=8)
    for question, got in zip(questions, together):
        alone = facade.generate(BUNNY, question, 8, frames=8)
        assert got.generated_text == alone.generated_text
        assert [got[name] for name in COUNTS] == [alone[name] for name in COUNTS]


def test_another_look_at_a_video_is_encoded_anew(make: Any, model: Any, tmp_path: Path) -> None:
    facade, copy = make(), shutil.copy(BUNNY, tmp_path / "clip.mp4")
    with looks(model) as seen:
        counts = [
            facade.generate(copy, "What?", 1, **look).tokens_before_stage1
            for look in ({"frames": 8}, {"frames": 4}, {"fps": 1.0}, {"frames": 4, "max_pixels": 2 * 28 * 28})
        ]
        assert seen == counts == [12, 6, 6, 2]
        plain = make(enable_stage1=False, enable_pruning=False)
        before = plain.generate(copy, "What?", 8, frames=4).generated_text
        shutil.copy(Path(copy), tmp_path / "old.mp4")
        write_noise(Path(copy))
        assert plain.generate(copy, "What?", 8, frames=4).generated_text != before
        assert len(seen) == 6


def write_noise(path: Path) -> None:
    """Another video under the same name."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 84, 56, "yuv420p"
        random = torch.Generator().manual_seed(0)
        for _ in range(8):
            noise = torch.randint(0, 256, (56, 84, 3), dtype=torch.uint8, generator=random)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise.numpy(), format="rgb24")))
        container.mux(stream.encode())


def test_nothing_stays_on_the_model(make: Any, model: Any) -> None:
    def hooks() -> int:
        return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())

    before, text = hooks(), plain_text(model, "What?", 8, frames=8)
    facade = make()
    facade.generate(BUNNY, "What?", 2, frames=8)
    broken = model.lm_head.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        facade.generate(BUNNY, "What?", 2, frames=8)
    broken.remove()
    assert hooks() == before
    assert plain_text(model, "What?", 8, frames=8) == text


# Sampling


def test_sampling(make: Any) -> None:
    facade = make()

    def text(sampling: Sampling, seed: int = 0) -> str:
        torch.manual_seed(seed)
        return facade.generate(BUNNY, "What?", 8, frames=4, sampling=sampling).generated_text

    greedy = text(Sampling())
    assert text(Sampling(), seed=1) == greedy
    assert text(Sampling(top_k=1), seed=1) == greedy
    assert text(Sampling(temperature=1e-4), seed=1) == greedy
    assert text(Sampling(top_p=1e-6), seed=1) == greedy
    hot = Sampling(temperature=5.0)
    assert text(hot, seed=1) == text(hot, seed=1)
    assert len({text(hot, seed) for seed in range(4)}) > 1


def test_what_a_checkpoint_brings_along_is_overruled(make: Any, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    facade = make()

    def texts() -> list[str]:
        found = []
        for sampling in (Sampling(), Sampling(temperature=3.0)):
            torch.manual_seed(0)
            found.append(facade.generate(BUNNY, "What?", 8, frames=4, sampling=sampling).generated_text)
        return found

    before = texts()
    for name, value in (("do_sample", True), ("temperature", 0.1), ("top_k", 1), ("top_p", 0.001)):
        monkeypatch.setattr(model.generation_config, name, value)
    assert texts() == before


@pytest.mark.parametrize(
    ("options", "name"),
    [
        *[({"temperature": value}, "temperature") for value in (0, -1.0, float("nan"), float("inf"), "hot", True)],
        *[({"top_p": value}, "top_p") for value in (0, 1.1, float("nan"), "all")],
        *[({"top_k": value}, "top_k") for value in (0, 1.5, True, "few")],
    ],
)
def test_bad_sampling(options: dict[str, Any], name: str) -> None:
    with pytest.raises(tp.InvalidValueError, match=name):
        Sampling(**options)


# Comparison, multiple choice, verbose


def test_compare(make: Any, model: Any) -> None:
    both = make().compare(BUNNY, "What moves?", 8, frames=8)
    assert both.plain.text == plain_text(model, "What moves?", 8, frames=8)
    assert both.plain.report is None
    assert both.pruned.text == make().generate(BUNNY, "What moves?", 8, frames=8).generated_text
    assert both.pruned.report.to_dict()["kv_bytes"] < both.pruned.report.to_dict()["kv_bytes_unpruned"]
    assert not both.same_answer
    for answer in (both.plain, both.pruned):
        assert min(answer.vision_seconds, answer.prefill_seconds, answer.decode_seconds) > 0
    told = json.loads(json.dumps(both.to_dict()))
    assert told["same_answer"] is False
    assert (told["plain"]["answer"], told["pruned"]["answer"]) == (both.plain.text, both.pruned.text)
    assert (told["plain"]["visual_tokens"], told["pruned"]["visual_tokens"]) == (12, len(both.pruned.report.sources[0]))
    assert told["pruned"]["kv_bytes"] < told["plain"]["kv_bytes"]
    assert told["pruned"]["decode_tokens_per_second"] > 0
    same = make(enable_stage1=False, enable_pruning=False).compare(BUNNY, "What moves?", 1, frames=8)
    assert same.same_answer
    assert same.to_dict()["pruned"]["kv_bytes"] == same.to_dict()["plain"]["kv_bytes"]
    assert same.to_dict()["plain"]["decode_tokens_per_second"] is None


def answering(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(tiny_processor().tokenizer, "batch_decode", lambda new, **_: [text] * len(new), raising=False)


@pytest.mark.parametrize(
    ("text", "prediction"), [("B", 1), ("The answer is C.", 2), ("a dog", 0), ("no idea", -1), ("", -1), ("E", -1)]
)
def test_multiple_choice(make: Any, monkeypatch: pytest.MonkeyPatch, text: str, prediction: int) -> None:
    answering(monkeypatch, text)
    found, given, stats = make().process_egoschema_sample(BUNNY, "What?", ["a dog", "a cat", "a hat"], frames=4)
    assert (found, given, stats["parsed"]) == (prediction, text, prediction >= 0)
    assert set(stats) == {*COUNTS, "parsed"}
    json.dumps(stats)


def test_a_tiny_models_answer_is_not_made_up(make: Any) -> None:
    found, text, stats = make().process_egoschema_sample(BUNNY, "What?", ["a dog", "a cat"], 6, frames=4)
    assert (found, stats["parsed"]) == (-1, False)
    assert text


def test_verbose(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    level = logging.getLogger("tokenprune").level
    got = make(verbose=True).generate(BUNNY, "What?", 1, frames=8)
    said = "\n".join(caplog.messages)
    columns = got.report.sources[0]
    rows = got.report.prompt_tokens[0] - 57  # after the 45 tokens that come before the video, and the video's 12
    assert f"12 visual tokens (4 x 1 x 3) in columns 45 to {45 + 11}" in said
    assert f"RopeCausalScore scores {got.tokens_before} visual tokens after layer 1" in said
    assert f"from {rows} text rows x {got.report.prompt_tokens[0] - 12 + got.tokens_before} keys, 4 heads" in said
    assert f"STMerge before the LLM: visual tokens [12] -> [{got.tokens_before}]" in said
    assert f"AttnPrune after layer 1: visual tokens [{got.tokens_before}] -> [{len(columns)}]" in said
    assert logging.getLogger("tokenprune").level == level


def test_silent_unless_verbose(make: Any, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    make().generate(BUNNY, "What?", 1, frames=8)
    assert caplog.messages == []
    assert capsys.readouterr() == ("", "")
    make(verbose=True).compare(BUNNY, "What?", 1, frames=8)
    assert sum("AttnPrune after layer" in line for line in caplog.messages) == 1


# What is refused


def test_bad_parameters(make: Any, model: Any) -> None:
    for options in (
        {"tau": 2.0},
        {"cluster_ratio": 0},
        {"temporal_segment_ratio": 1.5},
        {"keep_ratio": 0.0},
        {"keep_ratio": True},
        {"pruning_layer": 1.0},
        {"pruning_layer": LAYERS},
        {"model_path": "somewhere"},
        {"processor": None},
    ):
        with pytest.raises(tp.InvalidValueError):
            make(**options) if "processor" not in options else Qwen25VLPruneVid(model=model)


def test_bad_calls(make: Any, tmp_path: Path) -> None:
    facade, bad = make(), tmp_path / "bad.mp4"
    data = BUNNY.read_bytes()
    bad.write_bytes(data[: data.index(b"mdat") + 100])  # no frame is left
    for path in (bad, tmp_path / "none.mp4", tmp_path):
        with pytest.raises(tp.VideoError) as error:
            facade.generate(path, "What?")
        assert str(path) in str(error.value)
    for call in (
        lambda: facade.generate(BUNNY, " "),
        lambda: facade.generate(BUNNY, None),
        lambda: facade.generate(BUNNY, "<|video_pad|>"),
        lambda: facade.generate(BUNNY, "What?", 0),
        lambda: facade.generate(BUNNY, "What?", True),
        lambda: facade.generate(BUNNY, "What?", frames=0),
        lambda: facade.generate(BUNNY, "What?", frames=4, fps=1.0),
        lambda: facade.generate(BUNNY, "What?", max_pixels=1),
        lambda: facade.generate_many(BUNNY, []),
        lambda: facade.generate_many(BUNNY, "What?"),
        lambda: facade.compare(BUNNY, "What?", 0),
        lambda: facade.process_egoschema_sample(BUNNY, "What?", ["only one"]),
    ):
        with pytest.raises(tp.InvalidValueError) as error:
            call()
        assert "\n" not in str(error.value)


def test_a_checkpoint_by_path(tmp_path: Path) -> None:
    saved = save_tiny(tmp_path / "tiny")
    facade = Qwen25VLPruneVid(saved, pruning_layer=1, device="cpu", dtype="float32", attn_implementation="eager")
    assert facade.model.config._attn_implementation == "eager"
    assert facade.generate(BUNNY, "What?", 2, frames=4).tokens_after >= 1
    with pytest.raises(tp.ModelLoadError):
        Qwen25VLPruneVid(tmp_path / "none")


def test_another_processor_makes_other_counts(model: Any) -> None:
    small = Qwen25VLPruneVid(model=model, processor=build_processor(2 * 28 * 28), pruning_layer=1)
    assert small.generate(BUNNY, "What?", 1, frames=4).tokens_before_stage1 == 2


def test_what_is_switched_on_later_counts(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    facade = make()
    facade.generate(BUNNY, "What?", 1, frames=4)
    assert not caplog.records
    facade.verbose = True
    facade.generate(BUNNY, "What?", 1, frames=4)
    assert any("visual tokens" in record.getMessage() for record in caplog.records)
