"""Every model of the zoo leaves chance within a few hundred steps on the embedded digits, at reduced width."""

import pytest
import torch

from capsnb.data import Augment, DataSpec, prepare
from capsnb.nn.models import ZOO, MatrixCapsNetConfig
from capsnb.training.hooks import GrowMargin
from capsnb.training.loop import train
from capsnb.training.recipe import Recipe

SIZE = 20


def reduced(config):
    """The same kind of model, narrow, for crops of 20 pixels: as its family says, as it is where that says nothing."""
    return config.reduced(SIZE) if hasattr(config, "reduced") else config


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
