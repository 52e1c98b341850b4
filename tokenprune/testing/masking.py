# SPDX-License-Identifier: Apache-2.0
"""The plain model on the full sequence with removed tokens masked: what a pruned run has to agree with."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tokenprune.carried import MERGE, Carried
from tokenprune.runtime.report import Report
from tokenprune.testing.observe import Change, intercepted
from tokenprune.testing.prompts import VisualPrompt


@dataclass(frozen=True, eq=False)
class Removal:
    """Which columns of each row are gone, and from where on.

    Args:
        before: ``(B, L)`` bool, dropped or merged away before the LLM: no layer sees them.
        after: ``(B, L)`` bool, dropped after layer ``layer``: later layers do not see them, and later tokens nowhere.
        layer: see ``after``.
        merged: per row anchor column -> the columns whose features are averaged into it before the LLM.
        inside: the same for hidden states after layer ``layer``.
        until: ``(L,)`` int64, for each column where the prefill ends that it came with; None: all came with one.
        mass: ``(B, L)`` how many tokens each column stands for in attention; None: one each.
    """

    before: Tensor
    after: Tensor
    layer: int
    merged: Sequence[dict[int, list[int]]]
    inside: Sequence[dict[int, list[int]]] = ()
    until: Tensor | None = None
    mass: Tensor | None = None

    @classmethod
    def of(cls, prompt: VisualPrompt, merging: Report | None, final: Report, layer: int) -> Removal:
        """Read from two reports: that of the mergers alone (None: there are none), and that of the whole pipeline.

        What is merged at a layer can be told from the sources only where nothing has been merged before.
        """
        before, after = (torch.zeros_like(prompt.valid) for _ in range(2))
        merged: list[dict[int, list[int]]] = [{} for _ in prompt.spans]
        inside: list[dict[int, list[int]]] = [{} for _ in prompt.spans]
        for row in range(len(prompt.spans)):
            standing = prompt.columns(row)
            if merging is not None:
                kept = set(merging.kept[row].tolist())
                before[row, [c for c in standing if c not in kept]] = True
                standing = [c for c in standing if c in kept]
                merged[row] = {c: group.tolist() for c, group in zip(standing, merging.sources[row])}
            kept = set(final.kept[row].tolist())
            after[row, [c for c in standing if c not in kept]] = True
            if merging is None:
                inside[row] = {c: g.tolist() for c, g in zip([c for c in standing if c in kept], final.sources[row])}
        return cls(before, after, layer, merged, inside)


def masked_logits(
    model: Any,
    decoder: nn.Module,
    prompt: VisualPrompt,
    new: Tensor,
    removal: Removal,
    carried: Sequence[Carried] = (),
    recurrent: str = "",
) -> Tensor:
    """``(B, L + n, vocabulary)`` logits of the prompt and its answer ``(B, n)`` in one plain forward, without a cache.

    Merged features are put in place, every layer gets its own 4-D mask, and nothing else is touched.

    Args:
        model: the model.
        decoder: its decoder.
        prompt: the prompt.
        new: its answer.
        removal: what is gone.
        carried: what the family declares to travel with the tokens; what is merged there is merged here.
        recurrent: the attribute of a layer that holds its recurrent mixer; such a layer runs on the tokens that are
            there, and up to the cut it keeps what it has seen.
    """
    whole = prompt.answered(new)
    with torch.no_grad(), ExitStack() as stack:
        stack.enter_context(intercepted(decoder, _merging(removal, carried)))
        for index, layer in enumerate(_layers(decoder)):
            if index == removal.layer:
                stack.enter_context(_mixing_after(layer, removal.inside))
            if recurrent and hasattr(layer, recurrent):
                stack.enter_context(
                    _without(getattr(layer, recurrent), alive(prompt.length, whole.valid, removal, index))
                )
            else:
                stack.enter_context(intercepted(layer, _masking(prompt.length, whole.valid, removal, index)))
        return model(**whole.inputs, use_cache=False).logits


def _layers(decoder: nn.Module) -> list[nn.Module]:
    return list(decoder.get_submodule("layers").children())


def _merging(removal: Removal, carried: Sequence[Carried]) -> Change:
    def change(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        changed = {**kwargs, "inputs_embeds": _merged(kwargs["inputs_embeds"], removal.merged)}
        for each in carried:
            found = kwargs.get(each.name)
            if each.rule != MERGE or found is None:
                continue
            if each.packed_by is None:
                changed[each.name] = _merged(found, removal.merged)
                continue
            mask, lists = (
                kwargs[each.packed_by],
                [_merged_packed(p, kwargs[each.packed_by], removal.merged) for p in found],
            )
            late = [_merged_packed(packed, mask, removal.inside) for packed in lists]
            changed[each.name] = [*lists[: removal.layer], *late[removal.layer :]]
        return args, changed

    return change


@contextmanager
def _mixing_after(layer: nn.Module, inside: Sequence[dict[int, list[int]]]) -> Generator[None]:
    """What a layer puts out is mixed, before the decoder adds anything to it."""

    def mix(module: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, Tensor):
            return _merged(output, inside)
        return (_merged(output[0], inside), *output[1:])

    handle = layer.register_forward_hook(mix)
    try:
        yield
    finally:
        handle.remove()


def _merged(before: Tensor, merged: Sequence[dict[int, list[int]]]) -> Tensor:
    after = before.clone()
    for row, groups in enumerate(merged):
        for anchor, group in groups.items():
            after[row, anchor] = before[row, group].mean(dim=0)
    return after


def _merged_packed(packed: Tensor, mask: Tensor, merged: Sequence[dict[int, list[int]]]) -> Tensor:
    place = {tuple(at): number for number, at in enumerate(mask.nonzero().tolist())}
    after = packed.clone()
    for row, groups in enumerate(merged):
        for anchor, group in groups.items():
            after[place[row, anchor]] = packed[[place[row, member] for member in group]].mean(dim=0)
    return after


def alive(prefill: int, valid: Tensor, removal: Removal, layer: int) -> Tensor:
    """``(B, L)`` bool, the tokens on which a recurrent layer runs."""
    there = valid.clone()
    there[:, :prefill] &= ~removal.before
    if layer > removal.layer:
        there[:, :prefill] &= ~removal.after
    return there


@contextmanager
def _without(mixer: nn.Module, there: Tensor) -> Generator[None]:
    """A recurrent mixer runs on each row's tokens that are there, and puts out nothing for the others."""
    forward = mixer.forward

    def on_those(hidden_states: Tensor, **kwargs: Any) -> Tensor:
        out = torch.zeros_like(hidden_states)
        for row, mine in enumerate(there):
            out[row, mine] = forward(hidden_states=hidden_states[row : row + 1, mine], attention_mask=None)[0]
        return out

    mixer.forward = on_those  # type: ignore[method-assign]
    try:
        yield
    finally:
        del mixer.forward


def _masking(prefill: int, valid: Tensor, removal: Removal, layer: int) -> Change:
    length = valid.shape[1]
    until = torch.full((prefill,), prefill) if removal.until is None else removal.until
    later = torch.arange(length).unsqueeze(1) >= until  # (rows, columns)
    gone = torch.zeros(len(valid), length, length, dtype=torch.bool)
    gone[:, :, :prefill] |= removal.before[:, None, :]
    gone[:, :, :prefill] |= removal.after[:, None, :] & (later | (layer > removal.layer))
    allowed = torch.ones(length, length, dtype=torch.bool).tril() & valid[:, None, :] & ~gone
    bias = torch.where(allowed, 0.0, torch.finfo(torch.float32).min)[:, None]
    if removal.mass is not None:
        bias[..., :prefill] += removal.mass.log()[:, None, None, :]

    def change(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        hidden = args[0] if args else kwargs["hidden_states"]
        return args, {**kwargs, "attention_mask": bias.to(hidden.device, hidden.dtype)}

    return change
