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

from capsnb.evidence.claims import Claim, Explanation, verdict
from capsnb.evidence.records import Record, record, recorded
from capsnb.evidence.rules import Bound, Difference, Equivalence, Exact, Order, Rule, Value
from capsnb.evidence.tables import MIME, ClaimsTable, table
from capsnb.evidence.verdicts import WORDS, Verdict, holm, interval

__all__ = [
    "MIME",
    "WORDS",
    "Bound",
    "Claim",
    "ClaimsTable",
    "Difference",
    "Equivalence",
    "Exact",
    "Explanation",
    "Order",
    "Record",
    "Rule",
    "Value",
    "Verdict",
    "holm",
    "interval",
    "record",
    "recorded",
    "table",
    "verdict",
]
