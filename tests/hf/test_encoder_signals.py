# SPDX-License-Identifier: Apache-2.0
"""What the vision encoder's last full attention says of each token, and that it reaches the operators in its place."""

from __future__ import annotations

import copy
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch

pytest.importorskip("transformers")

from hf.compare import generate
from hf.names import TAKES_ENCODED
from hf.prompts import Clip, Prompt, image, prompt, shared_model
from hf.running import answers, kept, state_of
from qwen25vl.tiny import tiny_model
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as modeling
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision

import tokenprune as tp
from tokenprune.errors import UnsupportedModeError
from tokenprune.hf import encoded
from tokenprune.hf import encoder as module
from tokenprune.hf.encoded import names_of, recall
from tokenprune.hf.encoder import reading
from tokenprune.hf.frontend.features import encode, encoded_before, few_pixels
from tokenprune.signals import OF_THE_ENCODER
from tokenprune_qwen25vl.parts import require_parts
from tokenprune_qwen25vl.vision import window_order

EACH = 4
"""Patches of a token."""
GRIDS = [Clip(3, 3, 5), Clip(2, 4, 2), image(1, 7)]
RAGGED = [[3, Clip(3, 2, 3), 4], [2, image(2, 2), 3, Clip(2, 2, 3), 1, Clip(2, 3, 3), 5]]


@dataclass(frozen=True)
class Peek:
    """Keeps the tokens with the largest column mean, and remembers what it was shown."""

    keep: int | None = None
    needs: tuple[str, ...] = ("encoder_column",)
    modalities: tuple[str, ...] = ("video",)
    seen: list[tp.VisualTokens] = field(default_factory=list[tp.VisualTokens], compare=False)

    def budget(self, total: int) -> int:
        return total if self.keep is None else min(self.keep, total)

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        self.seen.append(tokens)
        order = torch.argsort(tokens.signals["encoder_column"], descending=True, stable=True)
        return tp.TokenPlan.keeping(order[: self.budget(len(tokens))].sort().values, len(tokens))


@dataclass(frozen=True)
class InPairs:
    """Merges each token with its neighbour."""

    needs: ClassVar[tuple[str, ...]] = ()

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        places = torch.arange(len(tokens)) // 2
        return tp.TokenPlan(torch.arange(0, len(tokens), 2), places)


@contextmanager
def eager_of(model: Any) -> Generator[list[dict[str, Tensor]], None, None]:
    """Per video and image, what follows from all of the last block's queries and keys, in fp64 and at once."""
    tower = model.model.visual
    attention, taken, results = tower.blocks[-1].attn, {}, []
    scaling, heads = attention.scaling, attention.num_heads

    def begin(module: nn.Module, args: Any, kwargs: Any) -> None:
        taken["grid"] = (kwargs["grid_thw"] if "grid_thw" in kwargs else args[1]).tolist()

    def rotary(module: nn.Module, args: Any, kwargs: Any) -> None:
        taken["rotary"] = kwargs["position_embeddings"]

    def projected(module: nn.Module, args: Any, output: Tensor) -> None:
        q, k, _ = output.reshape(len(output), 3, heads, -1).permute(1, 0, 2, 3).unbind(0)
        turned_q, turned_k = apply_rotary_pos_emb_vision(q, k, *taken["rotary"])
        start = 0
        for frames, height, width in taken["grid"]:
            found: dict[str, list[Tensor]] = {name: [] for name in OF_THE_ENCODER}
            for _frame in range(frames):
                part = slice(start, start + height * width)
                start += height * width
                mine, others = (x[part].transpose(0, 1).double() for x in (turned_q, turned_k))
                full = (mine @ others.mT * scaling).softmax(-1)
                found["encoder_column"].append(full.mean((0, 1)).view(-1, EACH).mean(1))
                each = others.view(heads, -1, EACH, others.shape[-1]).mean(2)
                found["encoder_pooled"].append((mine.mean(1, True) @ each.mT * scaling).softmax(-1).mean((0, 1)))
                found["encoder_keys"].append(k[part].double().view(-1, EACH, heads, k.shape[-1]).mean((1, 2)))
            side = tower.window_size // tower.spatial_merge_size // tower.patch_size
            order = window_order([(frames, height // 2, width // 2)], side)
            results.append({name: torch.cat(value)[torch.argsort(order)] for name, value in found.items()})

    with ExitStack() as stack:
        for handle in (
            tower.register_forward_pre_hook(begin, with_kwargs=True),
            attention.register_forward_pre_hook(rotary, with_kwargs=True),
            attention.qkv.register_forward_hook(projected),
        ):
            stack.callback(handle.remove)
        yield results


def run_tower(model: Any, clips: Sequence[Clip]) -> Tensor:
    pixels = torch.cat([clip.pixels(seed) for seed, clip in enumerate(clips)])
    with torch.no_grad():
        return model.model.visual(pixels, grid_thw=torch.tensor([c.grid_thw for c in clips])).pooler_output


def encoder_of(model: Any) -> Any:
    return require_parts(model).encoder


def features_of(model: Any, given: Prompt) -> dict[str, list[dict[str, Tensor]]]:
    """By modality, in the batch's order: the truth about each clip."""
    inputs = given.inputs()
    truth: dict[str, list[dict[str, Tensor]]] = {}
    for modality, pixels, grid in (
        ("video", "pixel_values_videos", "video_grid_thw"),
        ("image", "pixel_values", "image_grid_thw"),
    ):
        if pixels in inputs:
            with eager_of(model) as truth[modality], torch.no_grad():
                model.model.visual(inputs[pixels], grid_thw=inputs[grid])
    return truth


def close(found: Tensor, wanted: Tensor) -> bool:
    return found.shape == wanted.shape and torch.allclose(found.double(), wanted, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("grids", [[(1, 1, 1)], [(2, 5, 7)], [(3, 4, 6), (1, 9, 2), (2, 2, 2)], [(1, 8, 8)]])
@pytest.mark.parametrize("side", [1, 2, 4])
def test_the_order_inside_the_tower_is_the_librarys(grids: list[tuple[int, int, int]], side: int) -> None:
    vision = pytest.importorskip("transformers.vision_utils")
    thw = torch.tensor([(t, h * 2, w * 2) for t, h, w in grids])
    theirs, _ = vision.get_vision_window_index(thw, spatial_merge_size=2, window_size=side * 2 * 14, patch_size=14)
    assert window_order(grids, side).tolist() == theirs.tolist()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("piece_bytes", [module.LOGIT_BYTES, 1000])
def test_signals_are_those_of_the_whole_matrix(
    attention: str, piece_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOGIT_BYTES", piece_bytes)
    model = shared_model(attention)
    plain = run_tower(model, GRIDS)
    with reading(encoder_of(model), OF_THE_ENCODER, torch.float32), eager_of(model) as truth:
        features = run_tower(model, GRIDS)
    assert torch.equal(plain, features)
    parts = features.split([clip.count for clip in GRIDS])
    for clip, found, wanted in zip(GRIDS, recall(model.model.visual, parts), truth, strict=True):
        assert set(found) == set(OF_THE_ENCODER)
        assert all(value.dtype == torch.float32 and close(value, wanted[name]) for name, value in found.items())
        per_frame = found["encoder_column"].view(clip.frames, -1).sum(1)
        assert torch.allclose(per_frame, torch.full_like(per_frame, 1 / EACH))


def test_the_column_mean_is_that_of_the_librarys_eager_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own matrices; and where a token comes out is read from its features, so nothing of ours takes part."""
    model, matrices, unordered = shared_model("eager"), list[Tensor](), list[Tensor]()
    eager = modeling.eager_attention_forward

    def watched(*args: Any, **kwargs: Any) -> Any:
        output = eager(*args, **kwargs)
        matrices.append(output[1])
        return output

    monkeypatch.setattr(modeling, "eager_attention_forward", watched)
    handle = model.model.visual.merger.register_forward_hook(lambda *given: unordered.append(given[-1]))
    with reading(encoder_of(model), OF_THE_ENCODER, torch.float32):
        features = run_tower(model, GRIDS)
    handle.remove()
    frames = matrices[-sum(clip.frames for clip in GRIDS) :]
    columns = torch.cat([matrix.double().mean((0, 1, 2)) for matrix in frames]).view(-1, EACH).mean(1)
    place = (features.unsqueeze(1) == unordered[0]).all(-1).int().argmax(1)
    sizes = [clip.count for clip in GRIDS]
    assert sorted(place.tolist()) == list(range(sum(sizes)))
    assert place.tolist() != list(range(sum(sizes)))
    for found, wanted in zip(recall(model.model.visual, features.split(sizes)), columns[place].split(sizes)):
        assert close(found["encoder_column"], wanted)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("rows", [[[3, Clip(3, 2, 3), 4]], RAGGED], ids=["one", "ragged"])
def test_each_row_gets_its_own_videos(rows: list[list[Any]], beams: int) -> None:
    model, given = shared_model(), prompt(rows)
    truth = features_of(model, given)
    peek = Peek(keep=5, needs=OF_THE_ENCODER)
    with tp.attach(model, peek) as session:
        answers(model, given, num_beams=beams)
    wanted = {id(placed): signals for placed, signals in zip(given.placed("video"), truth["video"], strict=True)}
    for tokens, placed in zip(peek.seen, given.repeated(beams).placed("video"), strict=True):
        signals = wanted[id(placed)]
        assert all(close(tokens.signals[name], signals[name]) for name in OF_THE_ENCODER)
    for clips, columns in zip(given.clips, kept(session)[:: len(kept(session)) // len(given.clips)], strict=True):
        videos = [placed for placed in clips if placed.clip.modality == "video"]
        best = [
            placed.column + place
            for placed in videos
            for place in wanted[id(placed)]["encoder_column"].topk(5).indices.sort().values.tolist()
        ]
        inside = [range(placed.column, placed.column + placed.clip.count) for placed in videos]
        assert [column for column in columns if any(column in span for span in inside)] == best


def test_images_have_their_own() -> None:
    model, given = shared_model(), prompt(RAGGED)
    truth = features_of(model, given)
    peek = Peek(keep=3, modalities=("image", "video"))
    with tp.attach(model, peek):
        answers(model, given)
    wanted = [truth["video"][0], truth["image"][0], truth["video"][1], truth["video"][2]]
    for tokens, signals in zip(peek.seen, wanted, strict=True):
        assert close(tokens.signals["encoder_column"], signals["encoder_column"])
        assert set(tokens.signals) == {"encoder_column"}


def test_a_merger_before_sums_them() -> None:
    model, given = shared_model(), prompt([[3, Clip(3, 2, 3), 4], [2, image(2, 2), 3, Clip(2, 2, 3), 5]])
    truth = features_of(model, given)
    peek = Peek(keep=4, needs=OF_THE_ENCODER)
    with tp.attach(model, [InPairs(), peek]):
        answers(model, given)
    for tokens, signals in zip(peek.seen, truth["video"], strict=True):
        for name in ("encoder_column", "encoder_pooled"):
            assert close(tokens.signals[name], signals[name].view(-1, 2).sum(1))
        assert close(tokens.signals["encoder_keys"], signals["encoder_keys"].unflatten(0, (-1, 2)).mean(1))


def test_an_operator_that_keeps_all_changes_no_bit() -> None:
    model, given = shared_model(), prompt(RAGGED)
    plain = generate(model, given)
    with tp.attach(model, Always()):
        watched = generate(model, given)
    assert torch.equal(plain.sequences, watched.sequences)
    assert all(torch.equal(a, b) for a, b in zip(plain.logits, watched.logits, strict=True))


@dataclass(frozen=True)
class Always:
    """Reads everything and keeps it, without saying so before."""

    needs: ClassVar[tuple[str, ...]] = OF_THE_ENCODER

    def plan(self, tokens: tp.VisualTokens) -> tp.TokenPlan:
        assert set(tokens.signals) == set(OF_THE_ENCODER)
        return tp.TokenPlan.identity(len(tokens))


def test_nothing_is_read_that_no_operator_needs() -> None:
    model, given = shared_model(user="encoder"), prompt(RAGGED)
    before = state_of(model)
    with tp.attach(model, InPairs()):
        assert not model.model.visual._forward_hooks
        assert not model.model.visual.blocks[-1].attn.qkv._forward_hooks
        answers(model, given)
    peek = Peek(keep=3)
    with tp.attach(model, peek):
        answers(model, given)
    assert all(set(tokens.signals) == {"encoder_column"} for tokens in peek.seen)
    assert state_of(model) == before


def test_a_copy_of_an_attached_model_reads_nothing() -> None:
    model = tiny_model()
    session = tp.attach(model, Peek(keep=3))
    copied = copy.deepcopy(model)
    session.detach()
    for part in (copied.model.visual, copied.model.visual.blocks[-1].attn, copied.model.visual.blocks[-1].attn.qkv):
        assert not part._forward_hooks
        assert not part._forward_pre_hooks


@pytest.mark.parametrize("attached_first", [True, False])
def test_a_clip_that_was_encoded_before(attached_first: bool) -> None:
    model, given = shared_model(), prompt([[3, Clip(3, 2, 3), 4]])
    truth = features_of(model, given)["video"][0]
    inputs = given.inputs()
    features = encode(require_parts(model), inputs)
    tower = model.model.visual
    twice = given.repeated(2).inputs()
    twice["pixel_values_videos"] = few_pixels(tower, inputs["pixel_values_videos"])
    peek = Peek(keep=5)
    order = [lambda: tp.attach(model, peek), lambda: encoded_before(tower, features.repeat(2, 1))]
    with ExitStack() as stack:
        for enter in order if attached_first else order[::-1]:
            stack.enter_context(enter())
        model.generate(**twice, max_new_tokens=2, do_sample=False)
    assert len(peek.seen) == 2
    assert all(close(tokens.signals["encoder_column"], truth["encoder_column"]) for tokens in peek.seen)


def test_signals_live_as_long_as_the_features_that_were_encoded() -> None:
    model, inputs = tiny_model(), prompt([[3, Clip(3, 2, 3), 4]]).inputs()
    features = encode(require_parts(model), inputs)
    same = features.clone()
    assert set(recall(model.model.visual, [same])[0]) == set(OF_THE_ENCODER)
    del features
    encode(require_parts(model), inputs, ())
    with reading(encoder_of(model), ("encoder_pooled",), torch.float32):
        other = run_tower(model, GRIDS)
    assert not recall(model.model.visual, [same])[0]
    assert recall(model.model.visual, [other[: GRIDS[0].count]])[0]


def test_features_from_elsewhere_are_refused_before_the_decoder_runs() -> None:
    model, given = tiny_model(), prompt([[3, Clip(3, 2, 3), 4]])
    inputs = given.inputs()
    features = encode(require_parts(model), inputs, needs=("encoder_keys",))
    tower = model.model.visual
    inputs["pixel_values_videos"] = few_pixels(tower, inputs["pixel_values_videos"])
    layers: list[nn.Module] = []
    handle = model.model.language_model.layers[0].register_forward_pre_hook(lambda layer, _: layers.append(layer))
    with (
        tp.attach(model, Peek(keep=5)),
        encoded_before(tower, features),
        pytest.raises(UnsupportedModeError, match="Peek needs the signal encoder_column"),
    ):
        model.generate(**inputs, max_new_tokens=2)
    handle.remove()
    assert not layers


@pytest.mark.skipif(not TAKES_ENCODED, reason="this release does not take features that were encoded before")
def test_the_librarys_own_way_of_encoding_once() -> None:
    model, given = shared_model(), prompt([[3, Clip(3, 2, 3), 4]])
    truth = features_of(model, given)["video"][0]
    inputs = given.inputs()
    pixels, grid = inputs.pop("pixel_values_videos"), inputs["video_grid_thw"]
    peek = Peek(keep=5)
    with tp.attach(model, peek), torch.no_grad():
        output = model.model.get_video_features(pixels, grid, return_dict=True)
        for _ in range(2):
            model.generate(**inputs, mm_encoder_outputs={"video": output}, max_new_tokens=2, do_sample=False)
    assert len(peek.seen) == 2
    assert all(close(tokens.signals["encoder_column"], truth["encoder_column"]) for tokens in peek.seen)


def test_what_was_encoded_last_stays_whatever_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoded, "REMEMBERED_BYTES", 1)
    model = tiny_model()
    with reading(encoder_of(model), OF_THE_ENCODER, torch.float32):
        pass
    hooks = module.EncoderHooks(encoder_of(model), ("encoder_column",), torch.float32).put()
    outputs = [run_tower(model, [clip]) for clip in GRIDS]
    for hook in hooks:
        hook.remove()
    assert [bool(found) for found in recall(model.model.visual, outputs)] == [False, True, True]


def test_features_are_told_apart_by_their_bits() -> None:
    features = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    others = [features.clone() for _ in range(5)]
    others[0][3, 2] = torch.nextafter(others[0][3, 2], torch.tensor(9.0))
    others[1][[0, 1]] = others[1][[1, 0]]
    others[2][:, [0, 1]] = others[2][:, [1, 0]]
    others[3] = others[3][:5]
    others[4] = others[4].to(torch.bfloat16)
    assert names_of([features]) == names_of([features.clone()])
    assert len(set(names_of([features, *others]))) == 6


class Largest(TorchDispatchMode):
    """The bytes of the largest tensor that any operation puts out."""

    def __init__(self) -> None:
        super().__init__()
        self.nbytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        self.nbytes = max(self.nbytes, output.nbytes if isinstance(output, Tensor) else 0)
        return output


def test_no_frame_is_too_large_for_the_limit() -> None:
    """A frame whose matrix would take 72 MiB; logits and probabilities are alive together."""
    draw = torch.Generator().manual_seed(0)
    queries, keys = (torch.randn(3072, 2, 8, generator=draw) for _ in range(2))
    frame = module.Frame(queries, keys, torch.ones(3072, 8), torch.zeros(3072, 8), 8**-0.5, EACH)
    with Largest() as largest:
        found = module.column(frame)
    assert 0 < largest.nbytes <= module.LOGIT_BYTES // 2
    sharpest = (queries.double().transpose(0, 1) @ keys.double().permute(1, 2, 0) * 8**-0.5).softmax(-1)
    assert close(found, sharpest.mean((0, 1)).view(-1, EACH).mean(1))
