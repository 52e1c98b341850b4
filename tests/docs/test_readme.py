# SPDX-License-Identifier: Apache-2.0
"""The first page: its code runs as it stands, but for the model and the video, with what its extra installs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("torchvision")
pytest.importorskip("av")

from tokenprune_qwen25vl.assets import demo_clip
from tokenprune_qwen25vl.checkpoint import shipped_checkpoint

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LIBRARY, PRUNER, FACADE, PIPELINE = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
MODEL, QWEN3, VIDEO = '"Qwen/Qwen2.5-VL-7B-Instruct"', '"Qwen/Qwen3-VL-8B-Instruct"', '"video.mp4"'


def executed(block: str) -> dict[str, Any]:
    """What a block has defined when it is through."""
    for name, ours in ((MODEL, shipped_checkpoint()), (QWEN3, shipped_checkpoint()), (VIDEO, demo_clip())):
        block = block.replace(name, repr(str(ours)))
    names: dict[str, Any] = {"__name__": "__readme__"}
    exec(compile(block, "README.md", "exec", dont_inherit=True), names)  # noqa: S102
    return names


def require_torchcodec() -> None:
    """Skip where it is not installed, or has no FFmpeg that it could load: README.md says so."""
    try:
        import torchcodec.decoders  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        pytest.skip(f"torchcodec opens no videos here: {str(error).splitlines()[0]}")


def test_the_model_cards_own_way(capsys: pytest.CaptureFixture[str]) -> None:
    require_torchcodec()
    names = executed(LIBRARY)
    report = names["session"].report
    assert report.visual_tokens == [288]
    assert 0 < report.visual_retained[0] < 1
    assert capsys.readouterr().out.strip().endswith(str(report.visual_retained))
    assert names["ids"].shape[1] > names["inputs"].input_ids.shape[1]


def test_any_model(capsys: pytest.CaptureFixture[str]) -> None:
    answer = executed(PRUNER)["answer"]
    assert answer.visual_tokens == 288
    assert answer.visual_retained == 44 / 288  # 15 %, rounded up
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_our_own_way(capsys: pytest.CaptureFixture[str]) -> None:
    result = executed(FACADE)["result"]
    assert 0 < result.tokens_after < result.tokens_before_stage1 == 288
    assert result.generated_text
    assert capsys.readouterr().out == f"{result.generated_text} 288 -> {result.tokens_after}\n"


@pytest.mark.parametrize("block", [LIBRARY, FACADE])
def test_both_are_short_and_name_a_model_and_a_video_once(block: str) -> None:
    assert (block.count(MODEL), block.count(VIDEO)) == (1, 1)
    assert sum(bool(line.strip()) for line in block.splitlines()) <= 10


def test_a_pipeline_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tokenprune as tp

    monkeypatch.chdir(tmp_path)
    pipe = executed(PIPELINE)["pipe"]
    assert tp.Pipeline.load("pipeline.json") == pipe == tp.preset("default")


def test_the_extras_are_what_the_pages_say() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11 reads TOML")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert extras["qwen25vl"] == ["tokenprune-vlm[hf]"]
    assert extras["all"] == ["tokenprune-vlm[hf,plot,docs,testing,dev]"]
    names = {re.split(r"[^\w-]", entry)[0] for entry in extras["hf"]}
    assert names >= {"transformers", "accelerate", "torchvision", "torchcodec", "av", "pillow", "num2words"}
    assert {re.split(r"[^\w-]", entry)[0] for entry in extras["testing"]} == {"pytest", "hypothesis"}
