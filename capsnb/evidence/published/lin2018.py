"""Lin, Li & Ma 2018, On Learning and Learned (Data) Representation by Capsule Networks: figures without numbers."""

from capsnb.evidence.published.entry import column

PAPER = "Lin, Li & Ma 2018"

ENTRIES = column(
    PAPER,
    "table in sec. 3.2",
    "lin2018/chamfer",
    "",
    {"capsnet": (0.313, 0.010), "cnn": (0.394, 0.025)},
    "the spread is the printed variance; how the t-SNE plane is scaled is not said",
) | column(
    PAPER,
    "text, sec. 3.1",
    "lin2018/multimnist-images",
    "images",
    {"train": 30_889, "test": 4_738},
)
