# SPDX-License-Identifier: Apache-2.0
"""A second model class through a package of its own, installed as any other, built on public names alone."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("transformers")

from hf.names import CACHE, cache_of
from hf.prompts import shared_model
from torch import Tensor

import tokenprune as tp
from tokenprune.plugins import reset_plugins

PACKAGE = Path(__file__).parents[1] / "toy_adapter"
IMAGE, PAD, SIDE, LAYERS = 90, 91, 3, 4


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The package in a directory of its own, found as long as this module's tests run."""
    place = tmp_path_factory.mktemp("toy")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", str(place), str(PACKAGE)], check=True)
    sys.path.insert(0, str(place))
    importlib.invalidate_caches()
    reset_plugins()
    yield
    sys.path.remove(str(place))
    for name in [name for name in sys.modules if name.startswith("toy_llava_adapter")]:
        del sys.modules[name]
    importlib.invalidate_caches()
    reset_plugins()


@lru_cache
def llava() -> Any:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=12, patch_size=4
    )
    text = LlamaConfig(
        vocab_size=92,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=None,
    )
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=IMAGE, image_token_id=IMAGE, pad_token_id=PAD
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlavaForConditionalGeneration(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0.0, 0.2)
    model.set_attn_implementation("eager")
    model.generation_config.pad_token_id = PAD
    return model


def inputs(*rows: tuple[int, list[int], int]) -> dict[str, Tensor]:
    """Rows of (text before, frames of each video, text between and after)."""
    draw = torch.Generator().manual_seed(sum(map(len, map(str, rows))))

    def text(count: int) -> list[int]:
        return torch.randint(1, 90, (count,), generator=draw).tolist()

    ids, frames = [], 0
    for before, videos, after in rows:
        row = text(before)
        for length in videos:
            row += [IMAGE] * (length * SIDE * SIDE) + text(after)
            frames += length
        ids.append(row)
    longest = max(map(len, ids))
    still = torch.randn(frames, 3, 12, 12, generator=draw)
    still[:, :, :6] = still[:1, :, :6]  # the upper half does not move
    return {
        "input_ids": torch.tensor([[PAD] * (longest - len(row)) + row for row in ids]),
        "attention_mask": torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids]),
        "pixel_values": still,
    }


ROWS = inputs((4, [4], 5), (7, [2, 3], 3))


def generate(given: dict[str, Tensor], new: int = 4, **more: Any) -> Any:
    return llava().generate(
        **given,
        do_sample=False,
        max_new_tokens=new,
        output_logits=True,
        return_dict_in_generate=True,
        suppress_tokens=[IMAGE, PAD],
        **more,
    )


def embed(given: dict[str, Tensor]) -> Tensor:
    """``(B, L, D)`` embeddings of a prompt with its features in place."""
    model = llava()
    found: list[Tensor] = []
    handle = model.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: found.append(kwargs["inputs_embeds"].detach()), with_kwargs=True
    )
    with torch.no_grad():
        model(**given)
    handle.remove()
    return found[0]


def masked_logits(given: dict[str, Tensor], sequences: Tensor, removed: Tensor, layer: int) -> Tensor:
    """Logits of the full-length model in which removed tokens are hidden: after ``layer``, and from later tokens."""
    model, length = llava(), given["input_ids"].shape[1]
    total = sequences.shape[1]
    valid = torch.nn.functional.pad(given["attention_mask"].bool(), (0, total - length), value=True)
    gone = torch.nn.functional.pad(removed, (0, total - length))
    causal = torch.ones(total, total, dtype=torch.bool).tril() & valid[:, None, :]
    late = (torch.arange(total) >= length)[:, None]
    early_layers = causal & ~(gone[:, None, :] & late)
    late_layers = causal & ~gone[:, None, :]
    eye = torch.eye(total, dtype=torch.bool)
    embeds = torch.cat([embed(given), model.get_input_embeddings()(sequences[:, length:]).detach()], dim=1)
    positions = (valid.cumsum(1) - 1).clamp(min=0)
    handles = []
    for index, module in enumerate(model.model.language_model.layers):
        mask = torch.where((early_layers if index <= layer else late_layers) | eye, 0.0, -torch.inf)[:, None]

        def hide(module: Any, args: Any, kwargs: Any, mask: Tensor = mask) -> Any:
            return args, {**kwargs, "attention_mask": mask}

        handles.append(module.register_forward_pre_hook(hide, with_kwargs=True))
    with torch.no_grad():
        logits = model(inputs_embeds=embeds, position_ids=positions, use_cache=False).logits
    for handle in handles:
        handle.remove()
    return logits[:, length - 1 : -1]


def test_the_package_is_found_beside_ours() -> None:
    found = {plugin.name: plugin for plugin in tp.list_plugins()}
    assert found["toy_llava"].distribution == "toy-adapter"
    assert found["toy_llava"].status == "ok"
    with tp.attach(shared_model(), tp.Pipeline([])):  # each adapter declines the other's model
        pass
    with pytest.raises(tp.NoAdapterError, match=r"(?s)qwen25vl: .*toy_llava: Linear does not hold exactly one Llava"):
        tp.attach(torch.nn.Linear(2, 2), tp.Pipeline([]))


def test_only_public_names_are_imported() -> None:
    ours = 0
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                assert not any(name.name.split(".")[0] == "tokenprune" for name in node.names)
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tokenprune":
                assert node.module in ("tokenprune", "tokenprune.hf")
                assert {name.name for name in node.names} <= set(importlib.import_module(node.module).__all__)
                ours += len(node.names)
    assert ours > 10


def test_nothing_to_prune_changes_nothing() -> None:
    plain = generate(ROWS)
    for pipeline in (tp.Pipeline([]), tp.Pipeline([tp.AttnPrune(layer=1, keep_ratio=1.0)])):
        with tp.attach(llava(), pipeline) as session:
            found = generate(ROWS)
        assert all(torch.equal(one, other) for one, other in zip(found.logits, plain.logits))
        assert session.report.visual_tokens == [36, 45]


@pytest.mark.parametrize("layer", [0, 1, LAYERS - 1])
def test_removal_equals_masking(layer: int) -> None:
    with tp.attach(llava(), tp.Pipeline([tp.AttnPrune(layer=layer, keep_ratio=0.4)])) as session:
        out = generate(ROWS)
    kept = session.report.kept
    assert [int((ids[columns] == IMAGE).sum()) for columns, ids in zip(kept, ROWS["input_ids"])] == [15, 18]
    removed = ROWS["attention_mask"].bool()
    for row, columns in enumerate(kept):
        removed[row, columns] = False
    expected = masked_logits(ROWS, out.sequences, removed, layer)
    found = torch.stack(out.logits, dim=1)
    assert torch.allclose(found, expected, atol=1e-4)
    everything = masked_logits(ROWS, out.sequences, torch.zeros_like(removed), layer)
    assert not torch.allclose(found, everything, atol=1e-2)


@pytest.mark.parametrize("use_cache", [True, False])
def test_merging_equals_a_prompt_built_by_hand(use_cache: bool) -> None:
    """One row without padding: 1-D positions with gaps must not be taken for packed sequences."""
    model, given, merger = llava(), inputs((4, [4], 5)), tp.STMerge(tau=0.8, keep_ratio=0.5)
    with tp.attach(model, tp.Pipeline([merger])) as session:
        found = generate(given, new=1, use_cache=use_cache).logits[0]
    embeds = embed(given)[0]
    plan = merger.plan(tp.VisualTokens(embeds[4:40], (4, SIDE, SIDE)))
    assert session.report.stages[0]["visual_after"] == [18] == [plan.kept]
    columns = torch.cat([torch.arange(4), 4 + plan.anchors, torch.arange(40, len(embeds))])
    shorter = torch.cat([embeds[:4], plan.mix(embeds[4:40]), embeds[40:]])
    with torch.no_grad():
        expected = model(
            inputs_embeds=shorter[None],
            position_ids=columns[None],
            attention_mask=torch.ones(1, len(columns), dtype=torch.int64),
        ).logits[:, -1]
    assert torch.allclose(found, expected, atol=1e-4)
    assert session.report.kept[0].tolist() == columns.tolist()


def test_both_stages_in_a_ragged_batch_and_a_second_turn() -> None:
    model = llava()
    pipeline = tp.Pipeline([tp.STMerge(keep_ratio=0.6), tp.AttnPrune(layer=1, keep_ratio=0.5)])
    with tp.attach(model, pipeline) as session:
        first = generate(ROWS)
        assert session.report.stages[-1]["visual_after"] == [11, 14]
        ids = torch.cat([first.sequences, torch.tensor([[5, 6], [7, 8]])], dim=1)
        mask = torch.nn.functional.pad(ROWS["attention_mask"], (0, 6), value=1)
        second = generate({"input_ids": ids, "attention_mask": mask}, **{CACHE: cache_of(first)})
        assert cache_of(second).get_seq_length() == ids.shape[1] + 3
        assert len(session.reports) == 1
        for row in range(2):
            start = int((ROWS["attention_mask"][row] == 0).sum())
            frames = [slice(0, 4), slice(4, 9)][row]
            one = {
                "input_ids": ROWS["input_ids"][row : row + 1, start:],
                "attention_mask": ROWS["attention_mask"][row : row + 1, start:],
                "pixel_values": ROWS["pixel_values"][frames],
            }
            assert generate(one).sequences[0].tolist() == first.sequences[row, start:].tolist()


def test_what_it_refuses() -> None:
    model = llava()
    with tp.attach(model, tp.Pipeline([tp.AttnPrune(layer=1, keep_ratio=0.4)])) as session:
        with pytest.raises(tp.UnsupportedModeError, match="prefill_chunk_size"):
            generate(ROWS, prefill_chunk_size=4)
        with pytest.raises(tp.UnsupportedModeError, match="no text after its last visual token"):
            generate(inputs((3, [2], 0)))
        assert session.report is None
