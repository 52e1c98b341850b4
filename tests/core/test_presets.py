# SPDX-License-Identifier: Apache-2.0
"""The presets have the published values."""

from __future__ import annotations

import pytest

import tokenprune as tp
from tokenprune.errors import InvalidValueError

FULL = {
    "conservative": (0.9, 0.8, 0.5, 0.6),
    "default": (0.8, 0.5, 0.25, 0.4),
    "aggressive": (0.7, 0.3, 0.25, 0.3),
}


RECOMMENDED = ("recommended", "recommended_serving")


@pytest.mark.parametrize("name", FULL)
def test_full_presets(name: str) -> None:
    merge, prune = tp.preset(name)
    assert isinstance(merge, tp.STMerge)
    assert isinstance(prune, tp.AttnPrune)
    values = (merge.tau, merge.cluster_ratio, merge.temporal_segment_ratio, prune.keep_ratio)
    assert values == FULL[name]
    assert prune.layer == 0.36
    assert (merge.keep, merge.keep_ratio, prune.keep) == (None, None, None)


def test_the_halves_and_the_plain_model() -> None:
    merge, prune = tp.preset("default")
    assert list(tp.preset("stage1_only")) == [merge]
    assert list(tp.preset("stage2_only")) == [prune]
    assert list(tp.preset("baseline")) == []


def test_the_names() -> None:
    assert set(tp.presets()) == {*FULL, "stage1_only", "stage2_only", "baseline", *RECOMMENDED}


def test_the_recommended_ones_cover_at_15_percent_with_and_without_mass() -> None:
    assert tp.preset("recommended") == tp.Pipeline([tp.Cover(keep_ratio=0.15)], mass="sizes")
    assert tp.preset("recommended_serving") == tp.Pipeline([tp.Cover(keep_ratio=0.15, spread=0.5)], mass=None)


@pytest.mark.parametrize("name", ["custom", "Default", ""])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidValueError, match=r"preset must be one of .*default"):
        tp.preset(name)


@pytest.mark.parametrize("name", tp.presets())
def test_presets_survive_json(name: str) -> None:
    assert tp.Pipeline.from_dict(tp.preset(name).to_dict()) == tp.preset(name)
