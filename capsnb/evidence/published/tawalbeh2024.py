"""Tawalbeh & Oramas 2024, Towards the Characterization of Representations Learned via Capsule-based Networks."""

from itertools import product

from capsnb.evidence.published.entry import Cell, Published, column, grid

PAPER = "Tawalbeh & Oramas 2024"
SETS = ("mnist", "svhn", "celeba", "cifar10")

# Table 1's rows: validation and test accuracy for each of SETS.
PATHS = {
    "dr-dense": (99.9, 99.1, 96.7, 91.0, 93.0, 92.0, 93.6, 84.3),
    "dr-backward": (76.9, 78.5, 89.3, 87.2, 81.4, 80.6, 99.9, 99.9),
    "dr-forward": (95.2, 95.1, 96.0, 88.3, 89.1, 86.2, 99.9, 99.7),
    "em-dense": (98.1, 98.0, 81.4, 80.0, 85.7, 85.7, 73.4, 72.2),
    "em-backward": (98.6, 97.6, 84.3, 78.7, 85.6, 85.1, 72.3, 71.2),
    "em-forward": (98.8, 97.8, 83.3, 78.9, 85.7, 85.2, 72.9, 65.0),
}

# Table 2's columns: [low, high] of the activations for classes 0 to 9, then over classes, then the alpha in use.
INTERVALS = {
    "dr/mnist": (
        *((-0.44, 0.40), (-0.24, 0.3), (-0.2, 0.3), (-0.28, 0.3), (-0.33, 0.33)),
        *((-0.55, 0.5), (-0.1, 0.47), (-0.3, 0.3), (-0.45, 0.22), (-0.27, 0.29)),
        *((-0.55, 0.5), (-0.55, 0.5)),
    ),
    "dr/svhn": (
        *((-0.3, 0.25), (-0.6, 0.6), (-0.25, 0.28), (-0.33, 0.29), (-0.6, 0.58)),
        *((-0.3, 0.3), (-0.5, 0.57), (-0.25, 0.3), (-0.2, 0.25), (-0.4, 0.4)),
        *((-0.6, 0.6), (-0.6, 0.6)),
    ),
    "em/mnist": (
        *((0.1, 0.98), (0.12, 1.0), (0.1, 0.98), (0.1, 1.0), (0.1, 1.0)),
        *((0.12, 1.0), (0.12, 1.0), (0.1, 1.0), (0.1, 1.0), (0.1, 1.0)),
        *((0.1, 1.0), (0.1, 1.0)),
    ),
    "em/svhn": (
        *((0.15, 1.0), (0.15, 0.97), (0.08, 1.0), (0.1, 1.0), (0.1, 1.0)),
        *((0.11, 0.99), (0.1, 1.0), (0.1, 1.0), (0.06, 0.99), (0.1, 0.99)),
        *((0.06, 1.0), (0.1, 1.0)),
    ),
}
INTERVAL_ROWS = (*(f"class-{digit}" for digit in range(10)), "all-classes", "alpha")

# Table 3's rows: units shared by two classes among the top 10 of each.
SHARED = {
    "dr/mnist": {"1-7": 4, "2-8": 2, "3-5": 3, "4-8": 2, "6-8": 1, "7-9": 2, "0-9": 1},
    "dr/svhn": {"1-7": 4, "2-8": 2, "3-5": 5, "4-8": 1, "6-8": 4, "7-9": 2, "0-9": 2},
    "em/mnist": {"1-6": 2, "3-8": 3, "4-5": 1, "0-8": 3, "5-8": 3, "5-7": 3, "6-9": 0},
    "em/svhn": {"1-6": 0, "3-8": 0, "4-5": 1, "0-8": 1, "5-8": 0, "5-7": 0, "6-9": 1},
}
THREES = "printed 3 (33): 33 % does not fit 3 of 10 units"

EM_SHARED = ("2-8", "5-8", "5-7")

# Figure 9's steps of class-specific intervals. Figure 8 has no printed numbers.
STEPS = {
    "mnist": {"class-2": 0.045, "class-8": 0.06, "class-9": 0.05},
    "svhn": {"class-2": 0.048, "class-8": 0.04, "class-9": 0.07},
}
ELEVENTH = "an eleventh of Table 2's interval, rounded: 12 values, both ends included"

# Table 4's rows: relevance mass accuracy in %, at the thresholds .1, .25, .5; isolated and aggregated, DR then EM.
MASS_COLUMNS = tuple(
    f"{routing}-{kind}-{threshold}"
    for routing, kind, threshold in product(("dr", "em"), ("isolated", "aggregated"), ("0.1", "0.25", "0.5"))
)
MASS: dict[str, tuple[Cell, ...]] = {
    "mnist": (
        *((31, 6), (12, 4), (3, 1), (31, 5), (12, 3), (3, 4)),
        *((22, 14), (8, 5), (2, 1), (22, 13), (7, 5), (2, 1)),
    ),
    "svhn": (
        *((60, 10), (26, 8), (6, 3), (55, 10), (25, 7), (7, 2)),
        *((52, 16), (19, 9), (4, 3), (41, 12), (14, 6), (3, 2)),
    ),
    "celeba": (
        *((44, 7), (18, 5), (4, 2), (33, 6), (12, 3), (3, 1)),
        *((52, 21), (19, 12), (4, 3), (43, 18), (14, 1), (3, 2)),
    ),
    "cifar10": (
        *((73, 18), (33, 19), (5, 5), (62, 8), (24, 15), (4, 2)),
        *((50, 21), (13, 10), (1, 2), (42, 16), (10, 6), (1, 1)),
    ),
}


def intervals() -> dict[str, Published]:
    """Table 2 as two entries, low and high, per row."""
    found = {}
    for name, rows in INTERVALS.items():
        for end, side in enumerate(("low", "high")):
            values = {row: pair[end] for row, pair in zip(INTERVAL_ROWS, rows, strict=True)}
            found |= column(PAPER, "Table 2", f"tawalbeh2024/table2/{name}/{side}", "", values)
    return found


def shared() -> dict[str, Published]:
    """Table 3, a count per pair of classes."""
    found = {}
    for name, pairs in SHARED.items():
        for pair, count in pairs.items():
            note = THREES if (name, pair) == ("dr/mnist", "3-5") else ""
            found |= column(PAPER, "Table 3", f"tawalbeh2024/table3/{name}", "of 10 units", {pair: count}, note)
    return found


ENTRIES = (
    grid(
        PAPER,
        "Table 1",
        "tawalbeh2024/table1",
        {f"{images}/{split}": "% accuracy" for images in SETS for split in ("validation", "test")},
        PATHS,
    )
    | intervals()
    | shared()
    | grid(
        PAPER,
        "Table 4",
        "tawalbeh2024/table4",
        dict.fromkeys(MASS, "%"),
        {name: tuple(MASS[images][at] for images in MASS) for at, name in enumerate(MASS_COLUMNS)},
        dict.fromkeys(MASS, "relevance mass accuracy of the top 200 units"),
    )
    | column(
        PAPER,
        "text, sec. 6.2",
        "tawalbeh2024/chosen-k",
        "units",
        {"conv-filters": 35, "primary-capsules": 10},
        "chosen on validation data, for MNIST and SVHN",
    )
    | column(
        PAPER,
        "text, sec. 6.3",
        "tawalbeh2024/chosen-k",
        "units",
        {"overlap-capsules": 200},
        "for Table 4; where there are 200 units, a unit is not one of 32 types",
    )
    | column(PAPER, "text, sec. 6.2", "tawalbeh2024/shared/cifar10", "of 10 units", {"bird-cat": 2})
    | column(PAPER, "text, sec. 6.2", "tawalbeh2024/shared/celeba", "of 10 units", {"male-female": 0})
    | column(PAPER, "text, sec. 6.2", "tawalbeh2024/shared/em-mnist", "of 10 units", dict.fromkeys(EM_SHARED, 3))
    | column(PAPER, "text, figure 9", "tawalbeh2024/step/mnist", "", STEPS["mnist"], ELEVENTH)
    | column(PAPER, "text, figure 9", "tawalbeh2024/step/svhn", "", STEPS["svhn"], ELEVENTH)
)
