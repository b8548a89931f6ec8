"""A claim of a paper, the rule that decides it, the verdict on measured values, and the record of full runs.

    better = Claim(
        "reconstruction helps",
        "The decoder lowers the test error.",
        Difference("3-iterations-reconstruction", "3-iterations", "lower"),
        published=("sabour2017/table1/mnist/3-iterations-reconstruction", "sabour2017/table1/mnist/3-iterations"),
    )
    verdict(better, {"3-iterations-reconstruction": [0.26, 0.28, 0.25], "3-iterations": [0.36, 0.35, 0.33]})

Verdicts are computed from values, never typed.
"""

import importlib
from typing import Any

# loaded when asked for: the processes that execute notebooks need none of it, and it imports torch
_NAMES = {
    "claims": ("Claim", "Explanation", "verdict"),
    "records": ("Record", "record", "recorded"),
    "rules": ("Bound", "Correlation", "Difference", "Equivalence", "Exact", "Order", "Rule", "Value"),
    "tables": ("MIME", "ClaimsTable", "table"),
    "verdicts": ("WORDS", "Verdict", "holm", "interval"),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
