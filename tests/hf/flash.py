# SPDX-License-Identifier: Apache-2.0
"""flash-attention 2 in plain torch, behind the library's own entry, so that its unpadding and packing code runs."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from hf.prompts import shared_model
from torch import Tensor


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> Tensor:
    """One sequence, ``(length, heads, head_dim)``; the last query is aligned with the last key, as the kernels do."""
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    logits = torch.einsum("qhd,khd->hqk", q, k) * scale
    if causal:
        ahead = torch.ones(len(q), len(k), dtype=torch.bool).triu(len(k) - len(q) + 1)
        logits = logits.masked_fill(ahead, -math.inf)
    return torch.einsum("hqk,khd->qhd", logits.softmax(dim=-1), v)


def flash_modules(calls: Counter[str]) -> dict[str, ModuleType]:
    """What the library imports: ``flash_attn`` and its ``bert_padding``; ``calls`` counts which entry is used."""

    def flash_attn_func(
        q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0, softmax_scale: float = 1.0, causal: bool = False,
        window_size: tuple[int, int] = (-1, -1), deterministic: bool = False,
    ) -> Tensor:  # fmt: skip
        calls["dense"] += 1
        return torch.stack([attend(*row, softmax_scale, causal) for row in zip(q, k, v)])

    def flash_attn_varlen_func(
        q: Tensor, k: Tensor, v: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, max_seqlen_q: int,
        max_seqlen_k: int, dropout_p: float = 0.0, softmax_scale: float = 1.0, causal: bool = False,
        window_size: tuple[int, int] = (-1, -1), deterministic: bool = False,
    ) -> Tensor:  # fmt: skip
        calls["varlen"] += 1
        queries, keys = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
        assert (queries[-1], keys[-1]) == (len(q), len(k))
        return torch.cat(
            [
                attend(q[a:b], k[c:d], v[c:d], softmax_scale, causal)
                for a, b, c, d in zip(queries, queries[1:], keys, keys[1:])
            ]
        )

    def flash_attn_with_kvcache(*args: Any, **kwargs: Any) -> Tensor:
        raise NotImplementedError("paged attention has no part in these tests")

    from transformers import modeling_flash_attention_utils as library

    flash, padding = ModuleType("flash_attn"), ModuleType("flash_attn.bert_padding")
    for function in (flash_attn_func, flash_attn_varlen_func, flash_attn_with_kvcache):
        setattr(flash, function.__name__, function)
    padding.pad_input, padding.unpad_input = library._pad_input, library._unpad_input  # type: ignore[attr-defined]
    flash.bert_padding = padding  # type: ignore[attr-defined]
    return {"flash_attn": flash, "flash_attn.bert_padding": padding}


def imitate_flash(monkeypatch: pytest.MonkeyPatch) -> tuple[Callable[[], Any], Counter[str]]:
    """How to get the shared model with its decoder on flash-attention 2, and the count of kernel calls."""
    from transformers import modeling_flash_attention_utils as library

    calls: Counter[str] = Counter()
    for name, module in flash_modules(calls).items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(library, "is_flash_attn_2_available", lambda: True)
    for later in ("is_flash_attn_3_available", "is_flash_attn_4_available"):
        monkeypatch.setattr(library, later, lambda: False)  # they would look for the package's files
    for name in vars(library).copy():
        if name.endswith("_fn"):
            monkeypatch.setattr(library, name, None)  # what was loaded before is put back when the test is over
    monkeypatch.setattr(library, "_loaded_implementation", None)

    def model() -> Any:
        decoder = shared_model(user="flash")
        # Past set_attn_implementation, which would look for the package and a GPU.
        decoder.model.language_model.config._attn_implementation = "flash_attention_2"
        return decoder

    return model, calls
