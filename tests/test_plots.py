"""Plots are checked by their artists and arrays, never by pixels."""

import inspect

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
import pandas as pd
import pytest
import seaborn
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from capsnb import plot
from capsnb.plot.style import BLUE, RED, array, pixels

pytestmark = pytest.mark.usefixtures("figures_closed")


@pytest.fixture
def ax():
    return plt.subplots()[1]


def texts(ax):
    return [text.get_text() for text in ax.texts]


# data in --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.int64])
def test_tensors_become_arrays(kind):
    tensor = torch.ones(2, 3).to(kind).requires_grad_(kind.is_floating_point)
    assert array(tensor).tolist() == [[1, 1, 1], [1, 1, 1]]


@pytest.mark.parametrize(
    ("shape", "shown"),
    [((5, 1, 4, 6), (5, 4, 6, 3)), ((5, 3, 4, 6), (5, 4, 6, 3)), ((5, 4, 6), (5, 4, 6, 3)), ((2, 5, 1, 4, 6), None)],
)
def test_pixels_put_channels_last(shape, shown):
    images = np.full(shape, 255, dtype=np.uint8)
    assert pixels(images).shape == (shown or (2, 5, 4, 6, 3))
    assert pixels(images).max() == 1.0


def test_style_is_applied_once_for_all():
    with mpl.rc_context():
        plot.style()
        assert mpl.rcParams["axes.prop_cycle"].by_key()["color"] == list(plot.PALETTE)


def test_the_palette_is_seaborns_for_all_kinds_of_colour_vision():
    assert list(plot.PALETTE) == seaborn.color_palette("colorblind").as_hex()


def test_without_axes_the_look_is_the_same_and_settings_stay():
    before = dict(mpl.rcParams)
    ax = plot.learning_curve([{"epoch": 1, "loss": 1.0}], ["loss"])
    assert not ax.spines["top"].get_visible()
    assert dict(mpl.rcParams) == before


def test_every_figure_is_seen_in_a_notebook(tmp_path):
    import nbformat
    from nbclient import NotebookClient

    sources = ["from capsnb import plot", *["plot.lengths([0.1, 0.9]);"] * 2]
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    NotebookClient(nbformat.v4.new_notebook(cells=cells), kernel_name="python3", timeout=120).execute(cwd=str(tmp_path))
    assert [["image/png" in output["data"] for output in cell.outputs] for cell in cells] == [[], [True], [True]]


# training -------------------------------------------------------------------------------------------------------------

HISTORY = [
    {"epoch": 1, "accuracy": 80.0, "validation accuracy": 90.0},
    {"epoch": 2, "accuracy": 95.0, "validation accuracy": None},
    {"epoch": 3, "accuracy": 97.0, "validation accuracy": 96.0},
]


@pytest.mark.parametrize("history", [HISTORY, pd.DataFrame(HISTORY)])
def test_learning_curve_draws_what_is_known(history, ax):
    assert plot.learning_curve(history, ax=ax) is ax
    train, validation = ax.lines
    assert train.get_ydata().tolist() == [80.0, 95.0, 97.0]
    assert validation.get_xdata().tolist() == [1, 3]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["accuracy", "validation accuracy"]
    assert ax.get_xlabel() == "epoch"


def test_learning_curve_takes_other_names_for_the_legend(ax):
    plot.learning_curve(HISTORY, names={"accuracy": "training"}, ax=ax)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["training", "validation accuracy"]


def test_learning_curve_draws_the_rows_of_a_training(ax):
    columns = inspect.signature(plot.learning_curve).parameters["columns"].default
    rows = {"accuracy": 0.5, "validation accuracy": 0.4, "epoch": 1}  # as Training reports them
    assert set(columns) <= set(rows)
    assert plot.LiveCurve().columns == columns


def test_learning_curve_names_a_missing_column(ax):
    with pytest.raises(ValueError, match="no column 'loss'; it has: epoch, accuracy"):
        plot.learning_curve(HISTORY, ["loss"], ax=ax)
    assert not plot.learning_curve([], ax=ax).lines


def test_confusion_colours_mistakes_only(ax):
    plot.confusion([[8, 2, 0], [0, 9, 1], [0, 0, 10]], "abc", ax=ax)
    assert ax.get_title(loc="left") == "3 mistakes, 90.00 % right"
    shown = ax.images[0].get_array()
    assert shown.mask.diagonal().all() and shown.max() == 2
    assert texts(ax) == ["8", "2", "9", "1", "10"]  # zeros off the diagonal are left blank
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b", "c"]
    with pytest.raises(ValueError, match=r"2 classes is square in them, not \(3, 3\)"):
        plot.confusion(np.zeros((3, 3)), "ab")


def test_confusion_of_a_perfect_network(ax):
    plot.confusion(torch.eye(3) * 4, "abc", ax=ax)
    assert ax.get_title(loc="left") == "0 mistakes, 100.00 % right"


def test_lengths_mark_the_true_class(ax):
    plot.lengths(torch.tensor([[0.1, 0.95, 0.2]]), classes="abc", label=1, ax=ax)
    assert [bar.get_height() for bar in ax.patches] == pytest.approx([0.1, 0.95, 0.2])
    assert [to_hex(bar.get_facecolor()) == BLUE for bar in ax.patches] == [False, True, False]
    assert [line.get_ydata()[0] for line in ax.lines] == [0.1, 0.9]
    with pytest.raises(ValueError, match="one image"):
        plot.lengths(np.zeros((2, 3)))


def test_seed_points_show_every_seed(ax):
    from capsnb.evidence.published import lookup

    data = {
        "capsnet": {"published": lookup("gu2021/table1/affnist/capsnet"), "recorded": {0: 78.0, 1: 80.0}},
        "convnet": {"published": 94.11, "recorded": [93.0, 95.0], "this run": [90.0]},
        "new": {"this run": torch.tensor([50.0])},
    }
    plot.seed_points(data, unit="accuracy, %", paired=True, ax=ax)
    drawn = {line.get_label(): list(line.get_xdata()) for line in ax.lines if not line.get_label().startswith("_")}
    assert drawn == {"published": [79.0], "recorded run": [78.0, 80.0], "this run": [90.0]}
    assert len(ax.get_legend().get_texts()) == 3
    assert [label.get_text() for label in ax.get_yticklabels()] == ["capsnet", "convnet", "new"]
    joined = [list(line.get_xdata()) for line in ax.lines if line.get_alpha() == 0.35]
    assert joined == [[78.0, 93.0], [80.0, 95.0], [90.0, 50.0]]


# images ---------------------------------------------------------------------------------------------------------------


def test_image_grid_places_every_image(ax):
    images = torch.arange(7, dtype=torch.uint8).reshape(7, 1, 1, 1).expand(7, 1, 4, 4)
    plot.image_grid(images, columns=3, titles=[f"t{n}" for n in range(7)], ax=ax)
    assert len(ax.images) == 7
    assert [image.get_array()[0, 0, 0] * 255 for image in ax.images] == pytest.approx(range(7))
    lefts = [image.get_extent()[0] for image in ax.images]
    assert lefts[0] == lefts[3] == lefts[6] and lefts[0] < lefts[1] < lefts[2]
    assert texts(ax) == [f"t{n}" for n in range(7)]


def test_image_grid_of_a_table_is_labelled(ax):
    plot.image_grid(np.zeros((2, 3, 3, 4, 4)), row_labels=["r0", "r1"], column_labels="abc", ax=ax)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["r0", "r1"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["a", "b", "c"]
    with pytest.raises(ValueError, match="1 labels for 3 columns"):
        plot.image_grid(np.zeros((2, 3, 1, 4, 4)), column_labels=["a"])
    with pytest.raises(ValueError, match="not an array of"):
        plot.image_grid(np.zeros((4, 4)))


def test_reconstructions_mark_mistakes(ax):
    images = np.full((3, 1, 4, 4), 255, dtype=np.uint8)
    plot.reconstructions(images, torch.zeros(3, 1, 4, 4), labels=[4, 9, 7], predictions=[4, 7, 7], ax=ax)
    labels = ax.get_xticklabels()
    assert [label.get_text() for label in labels] == ["4", "9→7 ✗", "7"]
    assert [label.get_color() == RED for label in labels] == [False, True, False]
    assert [image.get_array().max() for image in ax.images] == [1, 1, 1, 0, 0, 0]
    with pytest.raises(ValueError, match="cannot stand above"):
        plot.reconstructions(images, np.zeros((2, 1, 4, 4)))


def test_perturbation_grid_frames_no_change(ax):
    images = torch.rand(16, 11, 8, 8)
    plot.perturbation_grid(images, np.linspace(-0.25, 0.25, 11), ax=ax)
    assert len(ax.images) == 176
    assert [label.get_text() for label in ax.get_xticklabels()][4:7] == ["-0.05", "0", "+0.05"]
    (frame,) = ax.patches
    middle = ax.images[5].get_extent()
    assert frame.get_x() < middle[0] and frame.get_x() + frame.get_width() > middle[1]
    plot.perturbation_grid(images[:, :2], [0.1, 0.2], ax=plt.subplots()[1])
    with pytest.raises(ValueError, match=r"\(dims, 3 steps, \[C,\] H, W\)"):
        plot.perturbation_grid(images, [0, 1, 2])


# routing --------------------------------------------------------------------------------------------------------------

STEPS = np.array(
    [
        [[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]],
        [[0.2, 0.8], [0.6, 0.4], [0.1, 0.9]],
    ]
)


def test_couplings_order_children_by_their_last_parent():
    figure = plot.couplings(STEPS, classes="ab", label=1)
    first, bars, second = figure.axes[:3]
    assert first.get_title(loc="left") == "iteration 1: uniform, 1/2"
    assert second.get_title(loc="left") == "iteration 2"
    # child 1 goes to parent a; children 2 and 0 to parent b, the surer first
    assert second.images[0].get_array().tolist() == [[0.6, 0.1, 0.2], [0.4, 0.9, 0.8]]
    assert [bar.get_width() for bar in bars.patches] == [0.5, 0.5]
    assert second.images[0].norm.vcenter == 0.5
    assert second.get_yticklabels()[1].get_fontweight() == "bold"


def test_couplings_of_uniform_routing_and_of_a_batch():
    plot.couplings(torch.full((1, 5, 3), 1 / 3))
    with pytest.raises(ValueError, match="one image"):
        plot.couplings(np.zeros((2, 3, 5, 4)))


def test_coupling_histogram_shares(ax):
    plot.coupling_histogram({"one-hot": np.eye(4), "uniform": np.full((2, 4), 0.25)}, ax=ax)
    assert ax.get_yscale() == "log"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one-hot", "uniform", "uniform, 1/4"]
    assert ax.lines[0].get_xdata()[0] == 0.25
    single = plot.coupling_histogram(np.eye(4))
    vertices = single.patches[0].get_xy()
    assert vertices[:, 1].max() == pytest.approx(0.75)  # 12 of 16 couplings are 0


# architecture ---------------------------------------------------------------------------------------------------------

SABOUR = {
    "conv1": (1, 256, 20, 20),
    "primary": (1, 1152, 8),
    "class.votes": (1, 1152, 10, 16),
    "class.coupling": (1, 1152, 10),
    "class.poses": (1, 10, 16),
    "reconstruction": (1, 1, 28, 28),
}


def test_architecture_from_shapes(ax):
    plot.architecture(SABOUR, image=np.zeros((1, 28, 28)), ax=ax)
    found = texts(ax)
    for expected in ("image", "conv1", "256 maps\n20x20", "1,152 capsules\nof 8 numbers", "routing", "decoder"):
        assert expected in found
    assert found.count("⋮") == 1  # 10 class capsules are all drawn
    assert len(ax.images) == 2


def test_architecture_draws_the_lengths_of_recorded_capsules(ax):
    poses = torch.tensor([[[0.6, 0.0], [0.0, 0.3]]])
    plot.architecture({"primary": torch.rand(1, 4, 2), "class.poses": poses}, ax=ax)
    widths = [patch.get_width() for patch in ax.patches if patch.get_linewidth() == 0][-2:]
    assert widths == pytest.approx([1.1 * 0.6, 1.1 * 0.3])


@pytest.mark.parametrize("model", ["deep-rba-40", "convnet-avg-40"])
def test_architecture_of_models_of_the_zoo(model):
    from capsnb.nn import taps
    from capsnb.nn.models import ZOO

    network = ZOO[model].config.build().eval()
    with torch.no_grad(), taps.record(network, *taps.names(network)) as seen:
        network(torch.rand(1, 1, 40, 40))
    ax = plot.architecture(seen)
    assert ax.figure.get_size_inches()[0] <= 14.01
    layers = {name.removesuffix(".poses") for name in seen if not name.endswith((".votes", ".coupling"))}
    assert layers <= set(texts(ax))


def test_architecture_needs_a_tap():
    with pytest.raises(ValueError, match="at least one tap"):
        plot.architecture({"class.votes": (1, 5, 2, 3)})


# live curve -----------------------------------------------------------------------------------------------------------


def test_live_curve_without_a_notebook_passes_rows_through():
    curve = plot.LiveCurve("accuracy", names={"accuracy": "training"}, ylabel="%", pause=1000)
    assert list(curve.follow(HISTORY)) == HISTORY
    (drawn,) = curve.figure.axes
    assert drawn.lines[0].get_ydata().tolist() == [80.0, 95.0, 97.0]  # the end is drawn whatever the pause
    assert drawn.lines[0].get_label() == "training"
    assert not plt.get_fignums()  # pyplot does not show it a second time


def test_live_curve_updates_one_display(monkeypatch):
    import IPython
    import IPython.display

    shown = []

    class Handle:
        def update(self, image):
            shown.append(("update", image.data[:4]))

    def display(image, display_id):
        shown.append(("display", image.data[:4]))
        return Handle()

    monkeypatch.setattr(IPython, "get_ipython", lambda: object())
    monkeypatch.setattr(IPython.display, "display", display)
    for row in plot.LiveCurve("accuracy", pause=0).follow(HISTORY):
        if row["epoch"] == 2:
            break
    assert shown == [("display", b"\x89PNG"), ("update", b"\x89PNG"), ("update", b"\x89PNG")]


def test_live_curve_waits_for_a_column():
    curve = plot.LiveCurve("loss", "entropy", pause=0)
    curve.add({"epoch": 1, "loss": 2.0})
    assert len(curve.figure.axes[0].lines) == 1
    curve.add({"epoch": 2, "loss": 1.0, "entropy": 0.5})
    assert [len(line.get_xdata()) for line in curve.figure.axes[0].lines] == [2, 1]
