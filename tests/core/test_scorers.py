# SPDX-License-Identifier: Apache-2.0
"""The scorers against float64 loops, and the promise that no large matrix is ever alive."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from tokenprune.attention_view import AttentionView
from tokenprune.errors import InvalidValueError
from tokenprune.operators.attn_prune import AttnPrune
from tokenprune.scorers import SCORERS, ContentScore, KeyNormScore, RopeCausalScore, as_scorer, attention
from tokenprune.testing import seen_by
from tokenprune.tokens import VisualTokens


@dataclass(frozen=True, eq=False)
class Case:
    """Tensors behind a view; ``True`` is the rotated one."""

    queries: dict[bool, Tensor]
    keys: dict[bool, Tensor]
    view: AttentionView


def make_case(
    *,
    heads: int,
    kv_heads: int,
    head_dim: int,
    valid: list[bool],
    columns: list[int],
    rows: list[int],
    seed: int = 0,
    spread: float = 1.5,
    dtype: torch.dtype = torch.float32,
) -> Case:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return (torch.randn(*shape, generator=generator) * spread).to(dtype)

    queries = {rotated: draw(heads, len(rows), head_dim) for rotated in (True, False)}
    keys = {rotated: draw(kv_heads, len(valid), head_dim) for rotated in (True, False)}
    view = AttentionView(
        read_queries=lambda rotated: queries[rotated],
        read_keys=lambda rotated: keys[rotated],
        text_rows=torch.tensor(rows),
        visual_columns=torch.tensor(columns),
        valid_keys=torch.tensor(valid),
        scaling=head_dim**-0.5,
    )
    return Case(queries, keys, view)


def plain() -> Case:
    """Six visual tokens and three text rows, one key head a query head."""
    return make_case(heads=2, kv_heads=2, head_dim=4, valid=[True] * 12, columns=[2, 3, 4, 5, 6, 7], rows=[9, 10, 11])


def grouped_and_padded() -> Case:
    """Three queries a key head, left padding, text between the frames and rows with gaps."""
    valid = [False] * 4 + [True] * 20
    return make_case(
        heads=6, kv_heads=2, head_dim=8, valid=valid, columns=[6, 7, 8, 11, 12, 13, 16], rows=[18, 20, 23], seed=1
    )


def after_earlier_turns() -> Case:
    """Earlier turns with padding of their own between them and this prefill; rows from the middle on."""
    valid = [False] * 3 + [True] * 9 + [False] * 2 + [True] * 16
    return make_case(
        heads=8, kv_heads=1, head_dim=4, valid=valid, columns=[15, 16, 17, 20, 21], rows=[23, 25, 26, 29], seed=2
    )


def rows_between_columns() -> Case:
    """A row that stands before some of the columns gives them nothing."""
    return make_case(heads=4, kv_heads=4, head_dim=4, valid=[True] * 9, columns=[1, 2, 6, 7], rows=[3, 5], seed=3)


def sharp() -> Case:
    """Logits in the hundreds: a softmax without its maximum taken off overflows."""
    valid = [False] + [True] * 15
    return make_case(
        heads=4, kv_heads=2, head_dim=8, valid=valid, columns=list(range(3, 10)), rows=[11, 15], seed=4, spread=12.0
    )


CASES = [plain, grouped_and_padded, after_earlier_turns, rows_between_columns, sharp]


def oracle(case: Case, *, rotated: bool, causal: bool, head_reduction: str) -> list[float]:
    """Softmax by loops in float64; the largest over rows, then the largest or the mean over heads."""
    queries, keys = case.queries[rotated].double().tolist(), case.keys[rotated].double().tolist()
    view = case.view
    valid, rows, columns = view.valid_keys.tolist(), view.text_rows.tolist(), view.visual_columns.tolist()
    group = len(queries) // len(keys)
    per_head: list[list[float]] = []
    for head, head_queries in enumerate(queries):
        best = [0.0] * len(columns)
        for place, query in zip(rows, head_queries):
            logits: dict[int, float] = {}
            for j, key in enumerate(keys[head // group]):
                if valid[j] and (not causal or j <= place):
                    logits[j] = view.scaling * math.fsum(q * k for q, k in zip(query, key))
            peak = max(logits.values())
            total = math.fsum(math.exp(logit - peak) for logit in logits.values())
            for n, column in enumerate(columns):
                if column in logits:
                    best[n] = max(best[n], math.exp(logits[column] - peak) / total)
        per_head.append(best)
    if head_reduction == "max":
        return [max(head[n] for head in per_head) for n in range(len(columns))]
    return [math.fsum(head[n] for head in per_head) / len(per_head) for n in range(len(columns))]


def expect(scores: Tensor, wanted: list[float]) -> None:
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.double(), torch.tensor(wanted, dtype=torch.float64), rtol=2e-5, atol=1e-9)


@pytest.mark.parametrize("head_reduction", ["max", "mean"])
@pytest.mark.parametrize("make", CASES)
class TestAgainstLoops:
    def test_rope_causal(self, make: Any, head_reduction: str) -> None:
        case = make()
        wanted = oracle(case, rotated=True, causal=True, head_reduction=head_reduction)
        expect(RopeCausalScore(head_reduction).score(seen_by(case.view)), wanted)

    def test_content(self, make: Any, head_reduction: str) -> None:
        case = make()
        wanted = oracle(case, rotated=False, causal=False, head_reduction=head_reduction)
        expect(ContentScore(head_reduction).score(seen_by(case.view)), wanted)

    def test_in_pieces(self, make: Any, head_reduction: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """From one line at a time to everything at once: the same scores and the same plan."""
        case = make()
        selector = AttnPrune(layer=0, keep_ratio=0.5, scorer=RopeCausalScore(head_reduction))
        blocks = torch.zeros(len(case.view.visual_columns), dtype=torch.int64)
        whole = selector.scorer.score(seen_by(case.view))
        wanted = oracle(case, rotated=True, causal=True, head_reduction=head_reduction)
        seen: set[tuple[int, int, int]] = set()
        for limit in (1, 700, 1500, 3000, 6000):
            monkeypatch.setattr(attention, "SCORE_BYTES", limit)
            pieces = selector.scorer.score(seen_by(case.view))
            expect(pieces, wanted)
            assert selector.choose(pieces, blocks).anchors.equal(selector.choose(whole, blocks).anchors)
            heads, rows, head_dim = case.queries[True].shape
            kv_heads, length, _ = case.keys[True].shape
            seen.add(attention.piece_sizes(kv_heads, heads // kv_heads, rows, length, len(blocks), head_dim))
        assert (1, 1, 1) in seen
        assert len(seen) > 1


@pytest.mark.parametrize("make", CASES)
def test_key_norm(make: Any) -> None:
    case = make()
    keys = case.keys[True].double().tolist()
    columns = case.view.visual_columns.tolist()
    wanted = [max(math.sqrt(math.fsum(v * v for v in head[column])) for head in keys) for column in columns]
    expect(KeyNormScore().score(seen_by(case.view)), wanted)


def test_key_norm_does_not_change_with_rope() -> None:
    keys = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
    angle = torch.rand(6, 4, generator=torch.Generator().manual_seed(1)) * 50
    first, second = keys[..., :4], keys[..., 4:]
    turned = torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], dim=-1)
    case = plain()
    norms = []
    for read in (keys, turned):
        view = AttentionView(
            case.view.read_queries, lambda rotated, k=read: k, torch.tensor([5]), torch.arange(4),
            torch.ones(6, dtype=torch.bool), 1.0,
        )  # fmt: skip
        norms.append(KeyNormScore().score(seen_by(view)))
    torch.testing.assert_close(norms[0], norms[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_only_the_storage(dtype: torch.dtype) -> None:
    """Scores of half-precision queries and keys are those of the same numbers in fp32, bit for bit."""
    case = make_case(
        heads=4, kv_heads=2, head_dim=8, valid=[True] * 20, columns=list(range(2, 14)), rows=[16, 18, 19], dtype=dtype
    )
    in_fp32 = AttentionView(
        lambda rotated: case.queries[rotated].float(), lambda rotated: case.keys[rotated].float(),
        case.view.text_rows, case.view.visual_columns, case.view.valid_keys, case.view.scaling,
    )  # fmt: skip
    for scorer in (RopeCausalScore(), ContentScore("mean"), KeyNormScore()):
        scores = scorer.score(seen_by(case.view))
        assert scores.dtype == torch.float32
        assert scores.equal(scorer.score(seen_by(in_fp32)))


@pytest.mark.parametrize("scorer", [RopeCausalScore(), RopeCausalScore("mean"), ContentScore(), KeyNormScore()])
class TestSideConditions:
    def test_autocast_changes_nothing(self, scorer: Any) -> None:
        case = grouped_and_padded()
        wanted = scorer.score(seen_by(case.view))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert scorer.score(seen_by(case.view)).equal(wanted)

    def test_no_gradient_and_nothing_mutated(self, scorer: Any) -> None:
        case = grouped_and_padded()
        before = {kind: (case.queries[kind].clone(), case.keys[kind].clone()) for kind in (True, False)}
        for kind in (True, False):
            case.queries[kind].requires_grad_()
            case.keys[kind].requires_grad_()
        assert not scorer.score(seen_by(case.view)).requires_grad
        for kind, (queries, keys) in before.items():
            assert case.queries[kind].equal(queries)
            assert case.keys[kind].equal(keys)

    def test_same_bits_twice(self, scorer: Any) -> None:
        assert scorer.score(seen_by(grouped_and_padded().view)).equal(scorer.score(seen_by(grouped_and_padded().view)))

    def test_no_value_is_read_on_the_host(self, scorer: Any) -> None:
        with Recorder() as recorder:
            scorer.score(seen_by(grouped_and_padded().view))
        assert recorder.names
        waits = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "unique", "is_nonzero"}
        assert not {name for name in recorder.names if name.split(".")[0] in waits}

    def test_no_columns(self, scorer: Any) -> None:
        case = make_case(heads=2, kv_heads=1, head_dim=4, valid=[True] * 5, columns=[], rows=[4])
        view = AttentionView(
            case.view.read_queries, case.view.read_keys, case.view.text_rows, torch.empty(0, dtype=torch.int64),
            case.view.valid_keys, 0.5,
        )  # fmt: skip
        assert scorer.score(seen_by(view)).shape == (0,)


class TestErrors:
    def test_unknown_head_reduction(self) -> None:
        for scorer in (RopeCausalScore, ContentScore):
            with pytest.raises(InvalidValueError, match=r"head_reduction must be one of max, mean, got 'sum'"):
                scorer("sum")
            with pytest.raises(InvalidValueError, match="head_reduction must be one of"):
                scorer(["max"])  # type: ignore[arg-type]

    def test_no_text_row(self) -> None:
        case = make_case(heads=2, kv_heads=1, head_dim=4, valid=[True] * 5, columns=[1, 2], rows=[])
        for scorer in (RopeCausalScore(), ContentScore()):
            with pytest.raises(InvalidValueError, match="at least one text row"):
                scorer.score(seen_by(case.view))

    def test_heads_that_do_not_fit(self) -> None:
        case = make_case(heads=3, kv_heads=2, head_dim=4, valid=[True] * 5, columns=[1, 2], rows=[4])
        with pytest.raises(InvalidValueError, match="multiple of key heads, got 3 and 2"):
            RopeCausalScore().score(seen_by(case.view))

    def test_tokens_without_attention(self) -> None:
        for scorer in (KeyNormScore(), RopeCausalScore(), ContentScore()):
            with pytest.raises(InvalidValueError, match=r'needs=\("attention",\)'):
                scorer.score(VisualTokens(torch.zeros(2, 1), (2, 1, 1)))

    def test_names(self) -> None:
        assert {name: as_scorer(name) for name in SCORERS} == {
            "rope_causal": RopeCausalScore(), "content": ContentScore(), "norm": KeyNormScore(),
        }  # fmt: skip
        assert as_scorer(mine := ContentScore("mean")) is mine
        for wrong in ("attention", "RopeCausalScore", "", RopeCausalScore, None, 3):
            with pytest.raises(InvalidValueError, match="scorer must be 'rope_causal', 'content', 'norm' or an object"):
                as_scorer(wrong)  # type: ignore[arg-type]


def test_only_content_needs_unrotated_keys() -> None:
    assert ContentScore.needs_unrotated_keys
    assert not getattr(RopeCausalScore, "needs_unrotated_keys", False)
    assert not getattr(KeyNormScore, "needs_unrotated_keys", False)


def test_visible_by_loops() -> None:
    for make in CASES:
        view = make().view
        valid, rows = view.valid_keys.tolist(), view.text_rows.tolist()
        for part in (slice(0, len(rows)), slice(1, 2), slice(0, 1)):
            wanted = [[ok and j <= place for j, ok in enumerate(valid)] for place in rows[part]]
            assert view.visible(part).tolist() == wanted


class Recorder(TorchDispatchMode):
    """Names of the operations, the largest tensor made and the most bytes alive, long-lived tensors left aside."""

    def __init__(self, leave_aside: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.leave_aside = leave_aside
        self.names: list[str] = []
        self.largest = 0
        self.most_alive = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {a.untyped_storage().data_ptr() for a in args if isinstance(a, Tensor)}
        result = func(*args, **(kwargs or {}))
        self.names.append(func.__name__)
        made = [t for t in (result if isinstance(result, (tuple, list)) else [result]) if isinstance(t, Tensor)]
        for tensor in made:
            storage = tensor.untyped_storage()
            if storage.data_ptr() in given or tuple(tensor.shape) == self.leave_aside:
                continue  # a view, an operation in place, or the keys in fp32
            self.largest = max(self.largest, storage.nbytes())
            self._alive[storage.data_ptr()] = (StorageWeakRef(storage), storage.nbytes())
        self._alive = {place: entry for place, entry in self._alive.items() if not entry[0].expired()}
        self.most_alive = max(self.most_alive, sum(size for _, size in self._alive.values()))
        return result


def measure(
    scorer: Any, heads: int, kv_heads: int, head_dim: int, length: int, rows: int, dtype: torch.dtype
) -> Recorder:
    case = make_case(
        heads=heads, kv_heads=kv_heads, head_dim=head_dim, valid=[True] * length, dtype=dtype, spread=0.3,
        columns=list(range(20, length - rows - 2)), rows=list(range(length - rows, length)),
    )  # fmt: skip
    with Recorder(leave_aside=(kv_heads, length, head_dim)) as recorder:
        scorer.score(seen_by(case.view))
    return recorder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scorer", [RopeCausalScore(), ContentScore("mean")])
def test_long_prompt_stays_below_the_limit(scorer: Any, dtype: torch.dtype) -> None:
    """14 000 tokens of a 7B model: read at once it would be 63 MB of logits and as much again of visual columns."""
    recorder = measure(scorer, heads=28, kv_heads=4, head_dim=128, length=14_000, rows=40, dtype=dtype)
    assert recorder.most_alive <= 64 * 2**20
    assert recorder.most_alive > 32 * 2**20  # the pieces are not needlessly small
    assert recorder.largest <= 28 * 40 * 14_000 * 4 / 2


@pytest.mark.parametrize("scorer", [RopeCausalScore("mean"), ContentScore()])
def test_heads_are_split_where_one_row_is_too_large(scorer: Any) -> None:
    kv_step, group_step, row_step = attention.piece_sizes(8, 8, 2, 100_000, 99_976, 4)
    assert kv_step * group_step < 64
    assert row_step == 1
    recorder = measure(scorer, heads=64, kv_heads=8, head_dim=4, length=100_000, rows=2, dtype=torch.float32)
    assert 32 * 2**20 < recorder.most_alive <= 64 * 2**20


def test_the_recorder_sees_what_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "SCORE_BYTES", 2**40)
    recorder = measure(RopeCausalScore(), 28, 4, 8, 14_000, 40, torch.float32)
    assert recorder.most_alive > 100 * 2**20
    assert recorder.largest >= 28 * 40 * 14_000 * 4


@pytest.mark.parametrize("kv_heads", [1, 2, 8])
@pytest.mark.parametrize("group", [1, 7])
@pytest.mark.parametrize("length", [10, 14_000, 400_000, 3_000_000])
def test_piece_sizes_fit(kv_heads: int, group: int, length: int) -> None:
    kv_step, group_step, row_step = attention.piece_sizes(kv_heads, group, 50, length, length - 5, 128)
    assert 1 <= kv_step <= kv_heads
    assert 1 <= group_step <= group
    assert 1 <= row_step <= 50
    assert row_step == 1 or (kv_step, group_step) == (kv_heads, group)
    logits_and_columns = kv_step * group_step * row_step * (2 * length - 5) * 4
    assert logits_and_columns <= attention.SCORE_BYTES
