# SPDX-License-Identifier: Apache-2.0
"""VidCom2: unusual frames keep more tokens, and each frame keeps its most unusual ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from tokenprune.about import About
from tokenprune.batching import pieces
from tokenprune.budget import split_budget
from tokenprune.errors import InvalidValueError
from tokenprune.messages import shown
from tokenprune.operator import check_modalities
from tokenprune.operators.budgeted import Budgeted
from tokenprune.operators.per_frame import best_of_each, require_full_grid
from tokenprune.plan import TokenPlan
from tokenprune.points import Points, inverse, stepped, undisturbed
from tokenprune.tokens import VisualTokens

WIDTHS = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0)
STEP = 1e-10
"""Similarities, which are computed in fp64, that differ by less are equal."""


@dataclass(frozen=True)
class VidCom2(Budgeted):
    """Keep the tokens least like the mean of the video and of their frame, more of them in unusual frames.

    VidCom2 (arXiv 2505.14454). Only the half of the channels that varies least over the video is read, and tokens are
    brought to length 1 in it. With ``kappa(y, c) = sum_a exp(-|y - c|^2 / (2 a))`` over a = 1/8, 1/4, 1/2, 1, 2, a
    token has ``v = kappa(y, mean of the video)`` and ``f = kappa(y, mean of its frame)``. A frame has
    ``u = -mean v`` and the share ``1 + sigma - mean sigma`` of the budget, ``sigma`` the softmax over frames of
    ``u / temperature``; in a frame the lowest ``v + f`` stay, the others are dropped.

    Differs from the authors' code: the budget is exact (split by largest remainder, ties to the earlier frame, what a
    full frame cannot take goes to the others, each frame keeps at least one token if the budget has as many; theirs
    rounds every frame by itself, vLLM's form then drops or adds tokens by score, wherever they are), one channel is
    enough, and of equal tokens the lower index stays. As in the code, and not as in the paper's text, the Gaussian sum
    is the similarity.

    Published: Qwen3-VL-8B at 32 frames keeps 96.6 and 92.5 % of its scores at 25 and 15 % of the tokens,
    LLaVA-OneVision-7B 99.6 and 95.1 %.

    >>> tokens = VisualTokens(torch.tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0], [1.0, 0.1]]), grid=(1, 2, 2))
    >>> VidCom2(keep=1).plan(tokens).anchors
    tensor([0])

    Args:
        keep_ratio: fraction of the tokens **kept**, in (0, 1]; the paper's ``R``.
        keep: exact number of tokens kept, instead of ``keep_ratio``.
        temperature: of the softmax over frames, above 0; the smaller, the more one frame is favoured.
        modalities: what it is shown: ``"video"``, ``"image"`` or both.

    Raises:
        BudgetError: both or neither of ``keep_ratio`` and ``keep`` given, or a value that is not allowed.
        InvalidValueError: another argument is not allowed; or, by ``plan``, tokens were merged or dropped before, or
            features hold NaN or infinity.
    """

    temperature: float = 0.01
    modalities: tuple[str, ...] = ("video",)

    about: ClassVar[About] = About("arXiv 2505.14454", "Apache-2.0", "N D")
    site: ClassVar[str] = "before_llm"
    needs_full_grid: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        value = self.temperature
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1e-6 <= value <= 1e6:
            raise InvalidValueError(f"temperature must be a number in [1e-6, 1e6], got {shown(value)}")
        object.__setattr__(self, "modalities", check_modalities(self.modalities))

    def plan(self, tokens: VisualTokens) -> TokenPlan:
        """Decide which tokens go on; ``plan.scores`` is ``-(v + f)``."""
        require_full_grid(self, tokens)
        total, device = len(tokens), tokens.features.device
        kept = self.budget.count(total)
        if kept == total:
            return TokenPlan.identity(total, device)
        with undisturbed(device):
            frames = tokens.grid[0]
            to_video, to_frame = _similarities(Points(tokens.features), frames)
            unusual = -to_video.mean(dim=1)
            sigma = ((unusual - unusual.amax()) / self.temperature).softmax(dim=0)
            shares = 1 + sigma - sigma.mean()
            weights = [round(share * 10**9) for share in shares.tolist()]
            counts = split_budget(weights, [total // frames] * frames, kept)
            scores = -(to_video + to_frame)
            anchors = best_of_each(stepped(scores, STEP), counts).to(device)
        return replace(TokenPlan.keeping(anchors, total), scores=scores.flatten().float().to(device))


def _similarities(points: Points, frames: int) -> tuple[Tensor, Tensor]:
    """``v`` and ``f``, ``(T, L)`` fp64 each. The video is read four times, a few frames at a time."""
    channels = _steady_channels(points)
    length = points.count // frames
    chunks = [
        slice(piece.start * length, piece.stop * length)
        for piece in pieces(frames, 2 * length * points.dim, points.device)
    ]

    def read(rows: slice) -> Tensor:
        part = points.read(rows).index_select(1, channels).double()
        return (part * inverse(part.square().sum(dim=1).sqrt())[:, None]).view(-1, length, len(channels))

    means = torch.cat([read(rows).mean(dim=1) for rows in chunks])
    video = means.mean(dim=0)
    found: list[list[Tensor]] = [[], []]
    for rows in chunks:
        units = read(rows)
        first = rows.start // length
        found[0].append(_kappa((units - video).square().sum(dim=2)))
        found[1].append(_kappa((units - means[first : first + len(units), None]).square().sum(dim=2)))
    return torch.cat(found[0]), torch.cat(found[1])


def _steady_channels(points: Points) -> Tensor:
    """The sorted half (rounded down, at least one) of the channels with the lowest variance over all tokens."""
    parts = list(pieces(points.count, 2 * points.dim, points.device))
    mean = torch.stack([points.read(rows).double().sum(dim=0) for rows in parts]).sum(dim=0) / points.count
    squares = [(points.read(rows).double() - mean).square().sum(dim=0) for rows in parts]
    variance = torch.stack(squares).sum(dim=0)
    scale = variance.amax()
    steps = stepped(variance * inverse(scale), STEP)
    return torch.argsort(steps, stable=True)[: max(1, points.dim // 2)].sort().values


def _kappa(squared: Tensor) -> Tensor:
    return torch.stack([torch.exp(-squared / (2 * width)) for width in WIDTHS]).sum(dim=0)
