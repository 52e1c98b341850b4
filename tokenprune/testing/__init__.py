# SPDX-License-Identifier: Apache-2.0
"""The laws of tokenprune as checks that any operator, scorer, cache or adapter can be held to.

``check_operator(MyOperator(...))`` runs every law of operators on generated tokens and raises
:class:`LawBrokenError`, which names the law. Adapters subclass :class:`AdapterConformance`. Needs hypothesis and
pytest.
"""

from __future__ import annotations

from importlib.util import find_spec

_missing = [name for name in ("hypothesis", "pytest") if find_spec(name) is None]
if _missing:
    raise ModuleNotFoundError(
        f'tokenprune.testing needs {" and ".join(_missing)}: pip install "tokenprune-vlm[testing]"', name=_missing[0]
    )

from tokenprune.testing.caches import CACHE_LAWS, check_cache  # noqa: E402
from tokenprune.testing.conformance import AdapterConformance  # noqa: E402
from tokenprune.testing.laws import Law, LawBrokenError, require  # noqa: E402
from tokenprune.testing.operators import OPERATOR_LAWS, check_operator  # noqa: E402
from tokenprune.testing.prompts import VisualPrompt  # noqa: E402
from tokenprune.testing.scorers import SCORER_LAWS, check_scorer  # noqa: E402
from tokenprune.testing.strategies import (  # noqa: E402
    attention_views,
    grids,
    operator_tokens,
    seen_by,
    token_plans,
    visual_tokens,
)

MERGER_LAWS = SELECTOR_LAWS = OPERATOR_LAWS
check_merger = check_selector = check_operator

__all__ = [
    "CACHE_LAWS",
    "MERGER_LAWS",
    "OPERATOR_LAWS",
    "SCORER_LAWS",
    "SELECTOR_LAWS",
    "AdapterConformance",
    "Law",
    "LawBrokenError",
    "VisualPrompt",
    "attention_views",
    "check_cache",
    "check_merger",
    "check_operator",
    "check_scorer",
    "check_selector",
    "grids",
    "operator_tokens",
    "require",
    "seen_by",
    "token_plans",
    "visual_tokens",
]
