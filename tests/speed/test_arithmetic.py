# SPDX-License-Identifier: Apache-2.0
"""Work by formula, held against what torch counts."""

from __future__ import annotations

import pytest

pytest.importorskip("transformers")
pytest.importorskip("torchvision")
pytest.importorskip("av")

from families.tiny import CASES, tiny_model
from speed.qwen_bench import bench
from torch.utils.flop_counter import FlopCounterMode

from tokenprune.bench.model_speed.decoder_sizes import decoder_shape
from tokenprune.bench.model_speed.lower_bound import run_layers
from tokenprune.bench.speed.arithmetic import Attention, DecoderShape, kv_bytes, prefill_flops

WIDTH = 32  # of the tiny decoder: heads x head size
SHAPE = DecoderShape(8, (Attention(heads=4, kv_heads=2, head_dim=2),) * 2, widths=(16, 16))


@pytest.mark.parametrize("kept", [1, 0.5])
@pytest.mark.parametrize("batch", [1, 2])
def test_the_formula_is_what_torch_counts_less_the_masked_half(kept: float, batch: int) -> None:
    made = bench(batch, attention="eager")
    length = made.prompt.length
    lengths = [length, *[int(length * kept)] * (len(made.parts.text.layers) - 1)]
    embeds, positions = made.prompt.embeds(made.parts), made.prompt.positions(made.parts)
    with FlopCounterMode(display=False) as counter:
        run_layers(made.parts, embeds, positions, lengths)
    with FlopCounterMode(display=False) as rotary:  # some releases make its angles by a product of matrices
        made.parts.text.rotary_emb(embeds, positions)
    shape = decoder_shape(made.parts.text)
    masked = sum(batch * 4 * WIDTH * (n * n - n * (n + 1) // 2) for n in lengths)
    formula = prefill_flops(shape, [[n] * batch for n in lengths])
    assert formula == counter.get_total_flops() - rotary.get_total_flops() - masked


def test_a_layer_by_hand() -> None:
    weights = 8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 16
    assert prefill_flops(SHAPE, [[3, 1]]) == 2 * weights * 4 + 2 * 2 * 8 * (1 + 2 + 3 + 1)
    assert prefill_flops(SHAPE, []) == 0


def test_a_cache_by_hand() -> None:
    assert kv_bytes(SHAPE, rows=3, longest=5, item_size=2) == 3 * 5 * 2 * (2 * 2 * 2) * 2


def test_of_experts_those_count_that_a_token_is_sent_to() -> None:
    case = next(case for case in CASES if str(case) == "qwen3_vl_moe")
    shape = decoder_shape(tiny_model(case).model.language_model)
    assert shape.widths == (2 * 16,) * 4
    assert shape.mixers == (Attention(4, 2, 8),) * 4
