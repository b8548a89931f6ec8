"""Mitterreiter, Koch, Giesen & Laue 2023, Why Capsule Neural Networks Do Not Scale: statistics of deep networks."""

from capsnb.evidence.published.entry import column, grid

PAPER = "Mitterreiter et al. 2023"

ENTRIES = (
    grid(
        PAPER,
        "Table 1",
        "mitterreiter2023/table1",
        {"alive": "capsules", "dyr": "", "dys": "capsules"},
        {
            "layer-1": ((16.00, 0.00), (0.30, 0.00), (4.50, 0.17)),
            "layer-2": ((14.90, 0.70), (0.25, 0.01), (1.72, 0.11)),
            "layer-3": ((7.00, 0.63), (0.30, 0.02), (1.79, 0.16)),
            "layer-4": ((5.90, 0.70), (0.38, 0.04), (3.78, 0.38)),
            "output": ((10.00, 0.00), None, None),
        },
        {"dys": "equals dyr times the number of capsules alive in the next layer, not times n as the text defines it"},
    )
    | grid(
        PAPER,
        "Table 2",
        "mitterreiter2023/table2",
        {"cnm": "", "cns": "", "car": "", "cas": "capsules", "cdr": "", "cds": "capsules"},
        {
            "layer-1": ((0.95, 0.00), (15.25, 0.06), (1.00, 0.00), (16.00, 0.00), (0.00, 0.00), (0.00, 0.00)),
            "layer-2": ((0.32, 0.01), (5.12, 0.18), (0.70, 0.03), (11.17, 0.48), (0.07, 0.04), (1.10, 0.70)),
            "layer-3": ((0.18, 0.01), (2.83, 0.08), (0.35, 0.03), (5.57, 0.42), (0.56, 0.04), (9.00, 0.63)),
            "layer-4": ((0.12, 0.00), (1.90, 0.07), (0.22, 0.02), (3.51, 0.27), (0.63, 0.04), (10.10, 0.70)),
            "layer-5": ((0.15, 0.01), (1.48, 0.05), (0.30, 0.03), (3.05, 0.00), (0.00, 0.00), (0.00, 0.00)),
        },
        {
            "car": "the threshold of an active capsule is not printed",
            "cas": "the threshold of an active capsule is not printed",
            "cas/layer-5": "the printed spread 0.00 does not fit the 0.03 of its rate over 10 capsules",
        },
    )
    | column(
        PAPER,
        "Table 3",
        "mitterreiter2023/table3/space",
        "exponent",
        {"attention-n": 0, "attention-d": 2, "agreement-n": 2, "agreement-d": 2},
        "self-attention O(d^2), routing by agreement O(n^2 d^2)",
    )
    | column(
        PAPER,
        "Table 3",
        "mitterreiter2023/table3/time",
        "exponent",
        {"attention-n": 2, "attention-d": 2, "agreement-n": 2, "agreement-d": 2},
        "leading exponents of self-attention O(n^2 d + n d^2) and routing by agreement O(n^2 d^2)",
    )
    | column(
        PAPER,
        "text, sec. 4.3",
        "mitterreiter2023/dead-rate",
        "% of capsules",
        {"layer-4": 63.0, "highest": 84.0},
        "the highest value is quoted from Table 20 of an appendix that we have not read",
    )
    | column(
        PAPER, "text, sec. 4.1", "mitterreiter2023/training", "% accuracy", {"target": 99.2}, "ten models on AffNIST"
    )
)
