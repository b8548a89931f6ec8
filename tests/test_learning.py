"""Every model of the zoo leaves chance within a few hundred steps on the embedded digits, at reduced width."""

from dataclasses import replace

import pytest
import torch

from capsnb.data import Augment, DataSpec, prepare
from capsnb.nn.models import (
    ZOO,
    CapsNetConfig,
    ConvNetAvgConfig,
    ConvNetFCConfig,
    DepthwiseStem,
    MatrixCapsNetConfig,
    NeuronNetConfig,
    ResCapsConfig,
    StridedStem,
)
from capsnb.training.hooks import GrowMargin
from capsnb.training.loop import train
from capsnb.training.recipe import Recipe

SIZE = 20


def reduced(config):
    """The same kind of model, narrow, for crops of 20 pixels."""
    if isinstance(config, CapsNetConfig):
        deep = isinstance(config.stem, DepthwiseStem)
        stem = (
            replace(config.stem, widths=(8, 16), kernels=(3, 3, 3), strides=(1, 2, 1), capsules=12)
            if deep
            else StridedStem(channels=16, kernel=5, types=4)
        )
        return replace(config, size=SIZE, channels=1, stem=stem, decoder_widths=(64,))
    if isinstance(config, ConvNetFCConfig):
        return replace(config, size=SIZE, widths=(8, 8, 8), kernel=5, hidden=(64, 32))
    if isinstance(config, ConvNetAvgConfig):
        return replace(config, size=SIZE, width=32, kernel=5)
    if isinstance(config, NeuronNetConfig):
        return replace(config, size=SIZE, width=16, primary=32, kernel=5)
    if isinstance(config, MatrixCapsNetConfig):
        sizes = {"width": 16, "padding": 0, "types": 4, "layers": ((4, 3, 2),)}
        return replace(config, size=SIZE, batch_norm=True, decoder="none", **sizes)
    if isinstance(config, ResCapsConfig):
        return replace(config, size=SIZE, width=8, types=(4, 4), decoder_widths=(64,))
    return replace(config, size=SIZE, width=16, kernel=5, decoder_widths=(64,))


@pytest.fixture(scope="module")
def digits():
    return prepare(DataSpec(crop=SIZE, train=2000, validation=300))


# entries that differ only in image size are one model here
KINDS = {(reduced(entry.config), entry.loss): name for name, entry in reversed(ZOO.items())}


@pytest.mark.parametrize("name", sorted(KINDS.values()))
def test_the_model_leaves_chance(name, digits):
    entry = ZOO[name]
    torch.manual_seed(0)
    model = reduced(entry.config).build()
    rate = 1e-2 if entry.loss == "spread" else 1e-3
    hooks = (GrowMargin(every=50),) if isinstance(entry.config, MatrixCapsNetConfig) else ()
    options = {"learning_rate": rate, "augment": Augment(), "hooks": hooks, "report_every": 50}
    recipe = Recipe(epochs=10, batch=50, loss=entry.loss, target_accuracy=0.5, **options)
    rows = list(train(model, digits, recipe, device="cpu", progress=False))
    # chance is 0.1; the recipe stops at the first report above one half, after at most 400 steps
    assert rows[-1]["validation accuracy"] >= 0.5, [row["validation accuracy"] for row in rows]
