# SPDX-License-Identifier: Apache-2.0
"""FastVID: few frames of each scene carry its tokens, the most attended ones and ones that take in all the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from tokenprune.about import About
from tokenprune.budget import as_fraction, split_budget
from tokenprune.device import places_where, upload, where_fp64_is
from tokenprune.operator import check_modalities
from tokenprune.operators.budgeted import Budgeted
from tokenprune.operators.context import merged_into_context, plan_of
from tokenprune.operators.frame_blocks import check_frames
from tokenprune.operators.peaks import centres_of
from tokenprune.operators.per_frame import ranks, require_full_grid, require_signal
from tokenprune.operators.scenes import breaks, frame_cosines, scenes_of
from tokenprune.plan import TokenPlan
from tokenprune.points import Points, undisturbed
from tokenprune.segments import Segment
from tokenprune.tokens import VisualTokens

NEIGHBOURS = 4


@dataclass(frozen=True)
class FastVID(Budgeted):
    """Keep in each scene the most attended tokens of a few frames, and density peaks that take in all of the scene.

    FastVID (arXiv 2503.11187). The video is cut where the cosine of consecutive frame means is below ``tau``, and at
    the lowest others until there are ``segments`` scenes. A scene gets a share of the budget in proportion to its
    tokens, of which ``context_ratio`` (rounded down, at least 1) are *context*. Runs of frames whose means are at least
    ``ignore`` alike count once: only the last frame of each run carries tokens. The others of the share are *salient*:
    those of largest ``encoder_pooled``, evenly from these frames. The context comes from every ``frame_step``-th of
    them: density peaks (4 neighbours) among the frame's tokens that are not salient. All tokens of the scene that are
    not salient are then merged into the context of each such frame they are not themselves of, the one of largest
    cosine: with n tokens x merged into it a context token c becomes ``w c + (1 - w) mean(x)``, ``w = max(1/(n+1),
    beta)``. So a token feeds several, and context tokens of other frames are fed as well (``plan.mixing``); its home in
    ``plan.assign`` is the most similar of all.

    Differs from the authors' code: the budget is exact, shared by largest remainder, where it rounds a share down a
    frame; what a frame cannot hold (context in half of its places, salient tokens in the rest) goes on to the others
    of its scene, and in the end, evenly, to the most attended tokens of frames that carry none; there are no more
    segments than frames, and any number of frames and tokens will do, where the code fails. Frames of context are
    counted from the first of a scene on and a remainder goes to the later ones, as in the code, in which that list is
    reversed; a remainder of salient tokens goes to the earlier ones. Cosines are resolved to 1e-6, ties go to the lower
    index, tokens stay in raster order. A frame's feature is the mean of its tokens, as in the authors' work for
    Qwen2.5-VL.

    Published: Qwen2.5-VL-7B with up to 768 frames keeps 93.3 % of VideoMME at 24.1 % of the tokens; as run by
    FlashVID's authors, 96.4 and 93.2 % of its scores at 20 and 10 % with 32 frames.

    >>> signals = {"encoder_pooled": torch.tensor([0.5, 0.2, 0.2, 0.1])}
    >>> FastVID(keep=2, segments=1).plan(VisualTokens(torch.eye(4), (1, 2, 2), signals=signals)).anchors
    tensor([0, 1])

    Args:
        keep_ratio: fraction of the tokens **kept**, in (0, 1].
        keep: exact number of tokens kept, instead of ``keep_ratio``.
        segments: scenes that there are at least, as far as there are frames; the paper's ``c``.
        tau: cosine of frame means below which the video is cut, in [-1, 1].
        ignore: cosine of frame means from which a frame is passed over for the next, in [-1, 1].
        context_ratio: the paper's ``d``, in [0, 1].
        frame_step: frames from one of context to the next, of those that carry tokens; the paper's ``p``.
        beta: least weight of a context token itself, in [0, 1].
        modalities: what it is shown: ``"video"``, ``"image"`` or both.

    Raises:
        BudgetError: both or neither of ``keep_ratio`` and ``keep`` given, or a value that is not allowed.
        InvalidValueError: another argument is not allowed; or, by ``plan``, tokens were merged or dropped before, or
            features or signal are missing or not finite.
    """

    segments: int = 8
    tau: float = 0.84
    ignore: float = 0.95
    context_ratio: float = 0.4
    frame_step: int = 4
    beta: float = 0.6
    modalities: tuple[str, ...] = ("video",)

    about: ClassVar[About] = About("arXiv 2503.11187", "MIT", "N^2 D / T")
    site: ClassVar[str] = "before_llm"
    needs: ClassVar[tuple[str, ...]] = ("encoder_pooled",)
    needs_full_grid: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_frames("segments", self.segments)
        check_frames("frame_step", self.frame_step)
        as_fraction("tau", self.tau, low=-1.0, low_open=False)
        as_fraction("ignore", self.ignore, low=-1.0, low_open=False)
        as_fraction("context_ratio", self.context_ratio, low_open=False)
        as_fraction("beta", self.beta, low_open=False)
        object.__setattr__(self, "modalities", check_modalities(self.modalities))

    def plan(self, tokens: VisualTokens) -> TokenPlan:
        """Decide which tokens go on, and what is merged into each; ``plan.scores`` is ``encoder_pooled``."""
        require_full_grid(self, tokens)
        total, device, frames = len(tokens), tokens.features.device, tokens.grid[0]
        pooled = require_signal(self, tokens, "encoder_pooled").to(device)
        kept = self.budget.count(total)
        if kept == total:
            return TokenPlan.identity(total, device)
        with undisturbed(device):
            points = Points(tokens.features)
            attended = where_fp64_is(pooled).view(frames, -1)
            length = attended.shape[1]
            alike = frame_cosines(points, frames)
            scenes, cuts = scenes_of(alike, self.segments, self.tau), set(breaks(alike, self.ignore))
            widths = [(stop - start) * length for start, stop in scenes]
            salient, context = [0] * frames, [0] * frames
            for scene, share in zip(scenes, split_budget(widths, widths, kept)):
                self._share_out(share, scene, cuts, length, salient, context)
            is_salient = ranks(attended) < upload(torch.tensor(salient, device="cpu"), points.device)[:, None]
            is_context = _peaks(points, is_salient, salient, context)
            entries = [
                merged_into_context(points, scene, is_salient, is_context, context, self.beta)
                for scene in scenes
                if any(context[slice(*scene)])
            ]
            plan = plan_of(is_salient | is_context, entries, kept)
        return replace(plan.to(device), scores=pooled.detach())

    def _share_out(
        self, share: int, scene: Segment, cuts: AbstractSet[int], length: int, salient: list[int], context: list[int]
    ) -> None:
        """Write down how many salient and context tokens of each frame of ``scene`` stay, ``share`` in all."""
        inside = range(*scene)
        carriers = [t for t in inside if t + 1 == scene[1] or t + 1 in cuts]
        later_first = carriers[:: self.frame_step][::-1]
        wanted = max(1, math.floor(as_fraction("context_ratio", self.context_ratio, low_open=False) * share))
        room = [length // 2] * len(later_first)
        for t, count in zip(later_first, split_budget([1] * len(room), room, min(wanted, share))):
            context[t] = count
        left = share - sum(context[slice(*scene)])
        for group in (carriers, [t for t in inside if t not in carriers]):
            room = [length - context[t] for t in group]
            for t, count in zip(group, split_budget([1] * len(room), room, left)):
                salient[t] = count
            left -= min(left, sum(room))


def _peaks(points: Points, is_salient: Tensor, salient: Sequence[int], context: Sequence[int]) -> Tensor:
    """``(T, L)`` the context tokens: ``context[t]`` density peaks of frame t among those that are not salient."""
    frames, length = is_salient.shape
    has = [t for t in range(frames) if context[t]]
    sizes = [length - salient[t] for t in has]
    is_among = (
        ~is_salient & upload(torch.tensor([count > 0 for count in context], device="cpu"), points.device)[:, None]
    )
    among = places_where(is_among.flatten(), sum(sizes))
    itself = torch.arange(len(among), device=points.device)
    counts = [context[t] for t in has]
    centres = centres_of(points.read(among), itself, sizes, counts, points.unit, lambda count: NEIGHBOURS)
    found = torch.zeros(frames * length, dtype=torch.bool, device=points.device)
    found[among] = centres == itself
    return found.view(frames, length)
