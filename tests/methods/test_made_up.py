# SPDX-License-Identifier: Apache-2.0
"""The made-up layers say the same through the package's view of attention as through the slow one."""

from __future__ import annotations

import numpy as np
import pytest
from methods.made_up import tokens_of
from oracles.seen import Seen, method_layers

LAYERS = {seen.name: seen for seen in method_layers()}


@pytest.mark.parametrize("seen", LAYERS.values(), ids=lambda seen: seen.name)
def test_the_package_reads_what_the_references_read(seen: Seen) -> None:
    tokens = tokens_of(seen)
    view = tokens.signals["attention"]
    for which in ("last", "text", 3, 64):
        np.testing.assert_allclose(view.rows(which), seen.rows(which), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(view.rows("last", layer=1), seen.next_layer().rows("last"), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(view.rows("last", layer=-1), seen.layer_before().rows("last"), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(view.keys()[:, view.visual_columns], seen.visual_keys)
    np.testing.assert_array_equal(view.values()[:, view.visual_columns], seen.visual_values)
    np.testing.assert_array_equal(view.keys()[:, view.text_rows], seen.text_keys)
    np.testing.assert_array_equal(view.hidden(), seen.features)
    np.testing.assert_array_equal(view.hidden(-1), seen.before)
    np.testing.assert_array_equal(view.text_hidden(), seen.text_features)


def test_what_is_left_is_read_as_well() -> None:
    left = LAYERS["drifting-41"].left([0, 7, 90])
    tokens = tokens_of(left)
    assert len(tokens) == 3
    np.testing.assert_allclose(tokens.signals["attention"].rows("text"), left.rows("text"), rtol=1e-5)
