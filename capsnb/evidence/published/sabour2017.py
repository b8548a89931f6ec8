"""Sabour, Frosst & Hinton 2017, Dynamic Routing Between Capsules: the network every other paper starts from."""

from capsnb.evidence.published.entry import column, grid

PAPER = "Sabour, Frosst & Hinton 2017"
COMPUTED = "follows from the printed architecture; exact, not printed"

ENTRIES = (
    grid(
        PAPER,
        "Table 1",
        "sabour2017/table1",
        {"mnist": "% error", "multimnist": "% error"},
        {
            "baseline": (0.39, 8.1),
            "1-iteration": ((0.34, 0.032), None),
            "1-iteration-reconstruction": ((0.29, 0.011), 7.5),
            "3-iterations": ((0.35, 0.036), None),
            "3-iterations-reconstruction": ((0.25, 0.005), 5.2),
        },
        {
            "mnist": "mean and standard deviation of 3 trials",
            "multimnist/3-iterations-reconstruction": "the text also says 5.0",
        },
    )
    | column(
        PAPER,
        "text, affNIST",
        "sabour2017/affnist",
        "% accuracy",
        {"capsnet": 79.0, "baseline": 66.0},
        "under-trained on purpose: stopped at 99.23 (CapsNet) and 99.22 (baseline) % on expanded MNIST",
    )
    | column(
        PAPER,
        "text, other datasets",
        "sabour2017/error",
        "% error",
        {"cifar10": 10.6, "svhn": 4.3, "smallnorb": 2.7},
        "CIFAR-10 is an ensemble of 7; SVHN a smaller network",
    )
    | column(
        PAPER,
        "computed",
        "sabour2017/parameters",
        "parameters",
        {"without-decoder": 6_804_224, "with-decoder": 8_215_568},
        COMPUTED,
    )
)
