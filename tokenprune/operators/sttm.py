# SPDX-License-Identifier: Apache-2.0
"""STTM: a quadtree of alike tokens for each frame, and nodes that lie in each other merged over time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from tokenprune.about import About
from tokenprune.budget import Budget
from tokenprune.errors import BudgetError, InvalidValueError
from tokenprune.layers import check_layer
from tokenprune.messages import shown
from tokenprune.operator import AFTER_LAYER, BEFORE_LLM, check_modalities
from tokenprune.operators.per_frame import require_full_grid
from tokenprune.operators.quadtree import Nodes, enough, pyramid
from tokenprune.operators.selection import keep_best
from tokenprune.operators.unit_vectors import deciding, scaled
from tokenprune.plan import TokenPlan
from tokenprune.tokens import VisualTokens


@dataclass(frozen=True)
class STTM:
    """Merge what is alike: in space the cells of a quadtree, in time nodes of which one lies in the other.

    STTM (arXiv 2507.07990), "multi-granular spatio-temporal token merging". The cells of a frame are pooled two by two
    by plain means, from single tokens upward until a side is 2 or less. From ``root_level`` downward a node stays whole
    if each of its children has a cosine of at least ``tau_s`` to it, else its children are asked. Then the nodes of
    neighbouring frames of which one contains the other are linked if their cosine is at least ``tau_t``; all that is
    linked, on through time, becomes one token: the plain mean of its nodes, at the upper left of the first of them.
    Defaults: after the second layer (``layer=1``), root one level below the coarsest, 0.85 and 0.65, which keep about
    half of a video's tokens.

    With ``keep_ratio`` or ``keep``, ``tau_t`` is not used: links merge from the highest cosine down while there are
    more tokens than the budget. Where the trees alone have fewer nodes, ``tau_s`` is raised just so far that they have
    enough; where all links leave more, those stay that stand for most tokens.

    Differs from the authors' work: only children that exist are asked and averaged at the border of an odd side (their
    code compares with the frame's first token there); links work both ways, as in their code, where the paper speaks
    of directed pairs; merged tokens keep the positions of their anchors, where theirs are renumbered; one-row grids
    and single tokens are trees as well; ties go to the lower index, cosines being resolved to 1e-6. Nothing of their
    code, which has no licence, was used.

    ``layer=None`` acts before the LLM, which is no longer the published method.

    Published: LLaVA-Video-7B is twice as fast at half of the tokens for 0.5 % of its scores, three times at 30 % for
    2 %; no figure for Qwen2.5-VL.

    >>> tokens = VisualTokens(torch.ones(8, 4), grid=(2, 2, 2))
    >>> STTM(layer=None).plan(tokens).assign
    tensor([0, 1, 2, 3, 0, 1, 2, 3])

    Args:
        layer: layers 0..layer see every token, later ones the kept; None: before the LLM.
        keep_ratio: fraction of the visual tokens **kept**.
        keep: exact number of tokens kept, instead of ``keep_ratio``; without both the thresholds decide.
        modalities: which visual tokens are decided about: ``"video"``, ``"image"`` or both.
        tau_s: cosine of children to their node from which on it stays whole, in [-1, 1].
        tau_t: cosine from which on nodes of neighbouring frames merge; left out: 0.65, unless a budget is given.
        root_level: how many levels below the coarsest the trees begin, at least 0.
        weighted_avg: nodes and merged tokens are means of all their tokens, not of their children and nodes.

    Raises:
        BudgetError: more than one of ``keep_ratio``, ``keep`` and ``tau_t``, or a budget that is not allowed.
        InvalidValueError: any other argument that is not allowed; or, by ``plan``, tokens were merged or dropped
            before, or hold NaN or infinity.
    """

    layer: int | float | None = 1
    keep_ratio: float | None = None
    keep: int | None = None
    modalities: tuple[str, ...] = ("video",)
    tau_s: float = 0.85
    tau_t: float | None = None
    root_level: int = 1
    weighted_avg: bool = False

    about: ClassVar[About] = About("arXiv 2507.07990", "none found", "N D", ({"layer": None},))
    needs: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[tuple[str, ...]] = ("features",)
    needs_full_grid: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.layer is not None:
            check_layer("layer", self.layer)
        if self.budget is not None and self.tau_t is not None:
            raise BudgetError("give a budget or tau_t, not both: with a budget links merge until it is met")
        for name, value in (("tau_s", self.tau_s), ("tau_t", 0.65 if self.tau_t is None else self.tau_t)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not -1 <= value <= 1:
                raise InvalidValueError(f"{name} must be a number in [-1, 1], got {shown(value)}")
        if isinstance(self.root_level, bool) or not isinstance(self.root_level, int) or self.root_level < 0:
            raise InvalidValueError(f"root_level must be an integer of at least 0, got {shown(self.root_level)}")
        if not isinstance(self.weighted_avg, bool):
            raise InvalidValueError(f"weighted_avg must be True or False, got {shown(self.weighted_avg)}")
        object.__setattr__(self, "modalities", check_modalities(self.modalities))

    @property
    def variant(self) -> bool:
        """Whether this is the form before the LLM, which is not the published method."""
        return self.layer is None

    @property
    def site(self) -> str:
        """After a layer; before the LLM without one."""
        return BEFORE_LLM if self.layer is None else AFTER_LAYER

    @property
    def budget(self) -> Budget | None:
        """The exact budget; None where the thresholds decide."""
        return None if self.keep_ratio is None and self.keep is None else Budget(self.keep_ratio, self.keep)

    def plan(self, tokens: VisualTokens) -> TokenPlan:
        """The merging; ``plan.scores`` is 1 - the strongest link of a token's node, 2 where it has none."""
        require_full_grid(self, tokens)
        total = len(tokens)
        count = None if self.budget is None else self.budget.count(total)
        if count == total:
            return TokenPlan.identity(total, tokens.features.device)
        with deciding(tokens):
            states = scaled(tokens.features)
            frames = [states[span.slice].view(*span.grid, -1) for span in tokens.spans]
            trees = [pyramid(each, self.root_level, weighted=self.weighted_avg) for each in frames]
            tau_s = self.tau_s if count is None else enough(trees, count, self.tau_s)
            nodes = Nodes.together([Nodes.of(levels, tau_s) for levels in trees])
            tau_t = 0.65 if self.tau_t is None else self.tau_t
            groups = nodes.groups(1, tau_t) if count is None else nodes.groups(count, -1.0)
            return self._merged(nodes, groups, count)

    def _merged(self, nodes: Nodes, groups: Tensor, count: int | None) -> TokenPlan:
        """The plan whose anchors are the corners of each group's first node; too many groups lose the smallest."""
        home = nodes.corner[groups][nodes.node]
        is_anchor = home == torch.arange(len(home), device=home.device)
        place = (is_anchor.cumsum(0) - 1)[home]
        plan = TokenPlan(is_anchor.nonzero().squeeze(1), place, None if self.weighted_avg else nodes.share)
        if count is not None and plan.kept > count:
            sizes = plan.sum(torch.ones_like(place))
            plan = plan.then(TokenPlan.keeping(keep_best(sizes, sizes, count), plan.kept))
        strongest = nodes.share.new_full((len(nodes.corner),), -1.0)
        for end in nodes.pairs.T:
            strongest = strongest.scatter_reduce(0, end, nodes.alike, "amax")
        return replace(plan, scores=1 - strongest[nodes.node])
