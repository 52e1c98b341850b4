# SPDX-License-Identifier: Apache-2.0
"""The lmms-eval plugin, where lmms-eval is installed (extra ``[eval]``): a toy task through its Python API, offline."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("lmms_eval", reason='lmms-eval is not installed: pip install "tokenprune-vlm[eval]"')

from qwen25vl.tiny import save_tiny

import tokenprune as tp

BUNNY = Path(__file__).parents[1] / "data" / "bigbuckbunny.mp4"
NAME = "tokenprune_qwen25vl"
QUESTIONS = ("What moves?", "Why does it move there?", "Who?")

TASK = """
task: tokenprune_toy
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: generate_until
doc_to_visual: !function toy.videos
doc_to_text: !function toy.text
doc_to_target: "answer"
process_results: !function toy.score
generation_kwargs: {{max_new_tokens: 6}}
metric_list:
  - metric: answered
    aggregation: mean
    higher_is_better: true
"""

FUNCTIONS = """
def videos(doc):
    return [doc["video"]]

def text(doc, lmms_eval_specific_kwargs=None):
    return doc["question"]

def score(doc, results):
    return {"answered": float(bool(results[0]))}
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def evaluate(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    data = tmp_path / "docs.jsonl"
    docs = [{"video": str(BUNNY), "question": question, "answer": "a"} for question in QUESTIONS]
    data.write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    (tasks / "toy.yaml").write_text(TASK.format(data=data))
    (tasks / "toy.py").write_text(FUNCTIONS)

    def run(model: str, **options: Any) -> dict[str, Any]:
        from lmms_eval.evaluator import simple_evaluate
        from lmms_eval.tasks import TaskManager

        fixed = {"pretrained": checkpoint, "device_map": "cpu", "max_num_frames": 8}
        arguments = {**fixed, "min_pixels": 28 * 28, "max_pixels": 6 * 28 * 28, **options}
        return simple_evaluate(
            model=model,
            model_args=",".join(f"{name}={value}" for name, value in arguments.items()),
            tasks=["tokenprune_toy"],
            batch_size=1,
            device="cpu",
            bootstrap_iters=0,
            task_manager=TaskManager(include_defaults=False, include_path=str(tasks)),
            cli_args=Namespace(process_with_media=False),
        )

    return run


@pytest.fixture
def spent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What every evaluation counted."""
    from tokenprune_qwen25vl import lmms

    made: list[Any] = []

    def noted() -> Any:
        made.append(lmms.Spent())
        return made[-1]

    class Noted(lmms.PrunedGeneration):
        def __init__(self, module: Any, pipeline: Any) -> None:
            super().__init__(module, pipeline, noted())

    monkeypatch.setattr(lmms, "PrunedGeneration", Noted)
    return made


def answers(results: dict[str, Any]) -> list[str]:
    samples = sorted(results["samples"]["tokenprune_toy"], key=lambda sample: sample["doc_id"])
    return [sample["filtered_resps"][0] for sample in samples]


def test_lmms_eval_finds_the_model() -> None:
    from lmms_eval.api.model import lmms as base
    from lmms_eval.models.registry_v2 import ModelRegistryV2

    from tokenprune_qwen25vl.lmms_manifest import MANIFEST

    registry = ModelRegistryV2()
    registry.load_entrypoint_manifests()
    assert registry.get_manifest(NAME) == MANIFEST
    found = registry.get_model_class(NAME)
    assert issubclass(found, base)
    assert not found.is_simple


def test_a_toy_task(evaluate: Any, spent: list[Any], tmp_path: Path) -> None:
    plain = evaluate("qwen2_5_vl")
    baseline = evaluate(NAME, pipeline="baseline")
    assert answers(baseline) == answers(plain)
    assert (spent[0].prompts, spent[0].retained) == (3, 3.0)
    assert len(set(answers(plain))) > 1

    pruned = evaluate(NAME, pipeline="default")
    assert spent[1].prompts == 3
    assert 0 < spent[1].retained / 3 < 0.5
    assert "3 prompts" in str(spent[1])
    assert pruned["results"]["tokenprune_toy"]["answered,none"] == 1.0

    saved = tmp_path / "mine.json"
    tp.Pipeline([tp.AttnPrune(layer=1, keep=2)]).save(saved)
    assert answers(evaluate(NAME, pipeline=saved)) != answers(plain)
    assert 0 < spent[2].retained < spent[1].retained


def test_bad_pipelines_are_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    from tokenprune_qwen25vl.lmms import PrunedQwen25VL

    with pytest.raises(tp.InvalidValueError, match="'fastest'"):
        PrunedQwen25VL(pipeline="fastest", pretrained="nobody/nothing")
    with pytest.raises(tp.PipelineFileError):
        PrunedQwen25VL(pipeline=str(tmp_path / "none.json"), pretrained="nobody/nothing")
