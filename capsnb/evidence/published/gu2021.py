"""Gu, Tresp & Hu 2021, Capsule Network is Not More Robust than Convolutional Network. Scores are means of 5 runs."""

from capsnb.evidence.published.entry import Cell, column, grid

PAPER = "Gu, Tresp & Hu 2021"
COMPUTED = "follows from the printed architecture on 40x40 images; exact, not printed"
KERNELS = (3, 5, 7, 9, 11)
FACTORS = ("rotation", "trans-x", "trans-y", "scale", "shear-x", "shear-y")


def kernels(model: str, *cells: Cell) -> dict[str, Cell]:
    """Name five cells by model and kernel size."""
    return {f"{model}-k{kernel}": cell for kernel, cell in zip(KERNELS, cells, strict=True)}


ENTRIES = (
    grid(
        PAPER,
        "Table 1",
        "gu2021/table1",
        {"parameters": "M parameters", "mnist": "% accuracy", "affnist": "% accuracy"},
        {
            "ge-capsnet": (None, 98.42, 89.10),
            "sparsecaps": (None, 99.0, 90.12),
            "scae": (None, 98.5, 92.21),
            "em-capsnet": (None, 99.2, 93.1),
            "convnet-fc": (35.4, 99.22, 66.0),
            "capsnet": (13.5, 99.23, 79.0),
            "capsnet-nor": (13.5, 99.22, 81.81),
            "aff-capsnet-dr": (7.5, 99.22, 89.03),
            "aff-capsnet": (7.5, 99.23, 93.21),
            "convnet-avg": (5.3, 99.22, 94.11),
        },
        {"mnist": "training is stopped at this accuracy on the test set"},
    )
    | grid(
        PAPER,
        "Table 2",
        "gu2021/table2",
        {"train": "% accuracy", "mnist": "% accuracy", "affnist": "% accuracy"},
        {
            "aff-capsnet": (100.0, (99.29, 0.13), (93.55, 1.47)),
            "dynamic-routing": (100.0, (99.21, 0.31), (90.07, 0.98)),
            "unshared-transform": (100.0, (98.98, 0.04), (80.49, 0.34)),
            "no-squash": (99.75, (97.93, 0.13), (80.42, 0.39)),
            "normal-reconstruction": (100.0, (99.43, 0.28), (95.09, 0.56)),
            "no-reconstruction": (100.0, (99.39, 0.26), (93.49, 0.46)),
            "cross-entropy": (100.0, (99.27, 0.05), (94.67, 0.43)),
        },
    )
    | column(
        PAPER,
        "Table 3",
        "gu2021/table3/parameters",
        "M parameters",
        kernels("capsnet", 16.1, 14.4, 13.5, 13.5, 14.3)
        | kernels("convnet-fc", 49.5, 35.4, 25.2, 18.8, 16.19)
        | kernels("convnet-avg", 0.59, 1.70, 3.23, 5.30, 7.96),
        "ConvNet-Avg: its architecture gives 1.65 at kernel 5 and 5.33 at kernel 9",
    )
    | column(
        PAPER,
        "Table 3",
        "gu2021/table3/mnist",
        "% accuracy",
        kernels("capsnet", 96.31, 98.18, 98.74, 99.26, 99.1)
        | kernels("convnet-fc", 96.54, 99.23, 99.03, None, None)
        | kernels("convnet-avg", 97.14, 98.58, 99.1, 99.22, 99.34),
    )
    | column(
        PAPER,
        "Table 3",
        "gu2021/table3/affnist",
        "% accuracy",
        kernels("capsnet", 61.36, 70.34, 75.82, 79.12, 86.79)
        | kernels("convnet-fc", 64.57, 66.08, 66.76, None, None)
        | kernels("convnet-avg", 86.58, 90.95, 92.31, 94.11, 90.58),
    )
    | grid(
        PAPER,
        "Table 4",
        "gu2021/table4",
        {"train": "% accuracy", "multimnist": "% accuracy"},
        {
            "capsnet": (94.03, (93.26, 0.24)),
            "no-routing": (90.28, (90.07, 0.29)),
            "shared-transform": (86.92, (86.44, 0.37)),
            "no-squash": (87.71, (87.24, 0.53)),
            "normal-reconstruction": (93.83, (93.19, 0.30)),
            "no-reconstruction": (90.28, (90.17, 0.26)),
            "binary-cross-entropy": (91.64, (91.19, 0.35)),
        },
        {
            "train/no-routing": "the same number as without reconstruction: one of the two may be a misprint",
            "train/no-reconstruction": "the same number as without routing: one of the two may be a misprint",
        },
    )
    | column(
        PAPER,
        "text, sec. 3.2",
        "gu2021/multimnist",
        "% accuracy",
        {"convnet-fc-lk": 97.11, "capsnet": 95.18},
    )
    | grid(
        PAPER,
        "Table 5",
        "gu2021/table5",
        dict.fromkeys(FACTORS, "nats"),
        {
            "convnet-r": (0.0003, 0.0016, 0.0009, 0.0004, 0.0003, 0.0007),
            "convnet-cr": (0.0028, 0.0038, 0.0032, 0.0052, 0.0058, 0.0022),
            "convnet-cr-sf": (0.0325, 0.2010, 0.3192, 0.0146, 0.0476, 0.0506),
            "capsnet": (0.0031, 0.0107, 0.0464, 0.0026, 0.0098, 0.0021),
        },
        dict.fromkeys(FACTORS, "MNIST; the logarithm is not printed, natural is assumed"),
    )
    | column(
        PAPER,
        "computed",
        "gu2021/parameters",
        "parameters",
        kernels("convnet-avg", 595_210, 1_647_882, 3_226_890, 5_332_234, 7_963_914),
        COMPUTED,
    )
    | column(
        PAPER,
        "computed",
        "gu2021/parameters",
        "M parameters",
        kernels("capsnet", 16.11, 14.38, 13.50, 13.48, 14.31)
        | kernels("aff-capsnet", 2.84, 3.89, 5.47, 7.58, 10.21)
        | kernels("convnet-fc", 49.49, 35.45, 25.22, 18.80, 16.19),
        "follows from the printed architecture on 40x40 images; rounded",
    )
)
