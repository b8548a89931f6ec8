"""Renzulli, Tartaglione & Grangetto 2022, REM: Routing Entropy Minimization for Capsule Networks."""

from capsnb.evidence.published.entry import column, grid

PAPER = "Renzulli et al. 2022"
FRACTION = "the spread seems to be printed as a fraction of 1, the accuracy in %"
CLASSES = "the spread is most likely over classes"
COPIED = "the same pair as Fashion-MNIST's in Table 6: likely a misprint, no target"


def keys(*counts: int) -> dict[str, int]:
    """Name ten counts by their class."""
    return {f"class-{digit}": count for digit, count in enumerate(counts)}


ENTRIES = (
    grid(
        PAPER,
        "Table 2",
        "renzulli2022/table2",
        {"accuracy": "% accuracy", "entropy": "bits"},
        {"epoch-1": (97.53, 1.83), "epoch-190": (99.55, 9.41)},
    )
    | column(
        PAPER,
        "Table 3",
        "renzulli2022/table3/keys",
        "keys",
        keys(974, 358, 968, 967, 859, 856, 939, 670, 965, 591) | {"total": 8_147},
        "one model at epoch 190; the total is in the text",
    )
    | grid(
        PAPER,
        "Table 4",
        "renzulli2022/table4",
        {"accuracy": "% accuracy", "sparsity": "% of parameters"},
        {
            "capsnet": ((99.57, 0.0002), 0.0),
            "capsnet-pruned": ((99.58, 0.0003), 85.53),
            "capsnet-q": ((99.56, 0.0003), 0.0),
            "rem": ((99.56, 0.0002), 85.53),
        },
        {"accuracy": FRACTION, "sparsity": "median of 5 seeds"},
    )
    | column(
        PAPER,
        "Table 5",
        "renzulli2022/table5/keys/capsnet-q",
        "keys",
        keys(972, 489, 1_007, 985, 904, 856, 939, 670, 968, 957),
        "median of 5 seeds",
    )
    | column(
        PAPER,
        "Table 5",
        "renzulli2022/table5/keys/rem",
        "keys",
        keys(40, 46, 15, 39, 12, 117, 182, 14, 310, 9),
        "median of 5 seeds",
    )
    | grid(
        PAPER,
        "Table 5",
        "renzulli2022/table5",
        {"sparsity": "% of parameters", "entropy": "bits"},
        {"capsnet-q": (0.0, (9.53, 0.54)), "rem": (85.53, (4.16, 1.59))},
        {"entropy": CLASSES},
    )
    | grid(
        PAPER,
        "Table 6",
        "renzulli2022/table6/fashion-mnist",
        {"accuracy": "% accuracy", "sparsity": "% of parameters", "entropy": "bits"},
        {
            "capsnet-q": ((92.46, 0.002), 0.0, (8.64, 1.15)),
            "rem": ((92.62, 0.001), 80.71, (4.80, 1.70)),
        },
        {"accuracy": FRACTION, "entropy": CLASSES},
    )
    | grid(
        PAPER,
        "Table 6",
        "renzulli2022/table6/cifar10",
        {"accuracy": "% accuracy", "sparsity": "% of parameters", "entropy": "bits"},
        {
            "capsnet-q": ((78.42, 0.026), 0.0, (6.26, 0.61)),
            "rem": ((79.25, 0.005), 81.17, (4.15, 0.62)),
        },
        {"accuracy": FRACTION, "entropy": CLASSES},
    )
    | grid(
        PAPER,
        "Table 6",
        "renzulli2022/table6/tiny-imagenet",
        {"accuracy": "% accuracy", "sparsity": "% of parameters", "entropy": "bits"},
        {
            "capsnet-q": ((58.50, 0.25), 0.0, (5.18, 0.67)),
            "rem": ((54.02, 0.14), 44.27, (3.15, 0.81)),
        },
        {"accuracy": "the spread is printed in % here", "entropy": CLASSES},
    )
    | grid(
        PAPER,
        "Table 7",
        "renzulli2022/table7",
        {"mnist": "% accuracy", "affnist": "% accuracy", "sparsity": "% of parameters", "entropy": "bits"},
        {
            "capsnet-q-under-trained": (99.22, (77.93, 0.005), 0.0, (8.64, 1.15)),
            "rem-under-trained": (99.22, (81.81, 0.008), 71.26, (8.45, 1.10)),
            "capsnet-q": ((99.36, 0.0005), (83.14, 0.002), 0.0, (8.45, 0.99)),
            "rem": ((99.48, 0.0002), (85.23, 0.001), 87.32, (5.93, 1.39)),
        },
        {
            "mnist": FRACTION,
            "affnist": FRACTION,
            "entropy": CLASSES,
            "entropy/capsnet-q-under-trained": COPIED,
        },
    )
)
