"""CUDA against the CPU: every model's forward pass, loss and gradients, and measures; skipped where there is no CUDA.

Tolerances are relative, of a tensor's norm: 1e-6 in float64, where nothing but the order of sums differs, 1e-2 in
float32 without TF32, where routing carries roundings on; of measures 1e-4, and 1e-2 where each device turns the images
itself and a pixel may be rounded the other way. `make gpu` runs this file.
"""

import copy
import math

import pytest
import torch
from torch.utils._pytree import tree_leaves

from capsnb.data import DataSpec, prepare
from capsnb.measure.protocol import find
from capsnb.measure.survey import Sizes
from capsnb.nn.losses import LOSSES, reconstruction
from capsnb.nn.models import ZOO, CapsNetConfig, StridedStem
from capsnb.training.loop import train
from capsnb.training.recipe import Recipe

NEAR = {torch.float64: 1e-6, torch.float32: 1e-2}
MODEL = CapsNetConfig(size=14, stem=StridedStem(channels=4, kernel=5, types=2), hidden=((4, 8),), decoder_widths=(8,))
SIZES = Sizes(images=12, few=3, parts=2)
EXACT = ("accuracy", "intervals", "perturbed", "path", "part-whole", "certainty", "plane", "keys", "parse tree")
TAKEN = dict.fromkeys(EXACT, 1e-4) | dict.fromkeys(("turned", "compactness", "robustness"), 1e-2)
NEEDED = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA here")


@pytest.fixture(autouse=True)
def full_precision():
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def differences(name, dtype, device):
    """Of each of a model's results its distance from the CPU's, relative to its norm."""
    config = ZOO[name].config
    torch.manual_seed(0)
    model = config.build().to(dtype)
    images = torch.rand(2, config.channels, config.size, config.size, dtype=dtype)
    found = [results(copy.deepcopy(model).to(place), images.to(place), ZOO[name].loss) for place in ("cpu", device)]
    return {key: distance(found[1][key], expected) for key, expected in found[0].items()}


def results(model, images, loss):
    labels = torch.arange(len(images), device=images.device)
    output = model(images, labels)
    total = LOSSES[loss](output.scores, labels).mean()
    if output.reconstruction is not None:
        total = total + 5e-4 * reconstruction(output.reconstruction, images).mean()
    total.backward()
    named = {"loss": total} | {key: value for key, value in output._asdict().items() if value is not None}
    named = {key: value.detach() for key, value in named.items()}
    return named | {key: value.grad for key, value in model.named_parameters() if value.grad is not None}


def distance(found, expected):
    size = float(expected.norm())
    return float((found.to(expected) - expected).norm()) / (size or 1.0)


def values(name, device):
    """Numbers of a measure of the small network on a device."""
    torch.manual_seed(0)
    measure = find(name)
    taken = measure(
        MODEL.build().to(device), prepare(DataSpec(resize=14, train=64, validation=20, test=40)), **SIZES.of(measure)
    )
    return [float(value) for value in tree_leaves(taken) if value is not None and not math.isnan(value)]


def test_the_comparison_itself_on_a_cpu(double):
    assert set(differences("efficient-capsnet", torch.float32, "cpu").values()) == {0}
    assert distance(torch.tensor([3.0, 0]), torch.tensor([3.0, 4])) == 0.8
    assert values("certainty", "cpu") == values("certainty", "cpu")


@NEEDED
@pytest.mark.parametrize("dtype", NEAR, ids=str)
@pytest.mark.parametrize("name", ZOO)
def test_a_model_is_the_same_function_with_the_same_gradients(name, dtype):
    found = differences(name, dtype, "cuda")
    assert {key: value for key, value in found.items() if not value <= NEAR[dtype]} == {}


@NEEDED
@pytest.mark.parametrize("name", TAKEN)
def test_a_measure_has_the_same_values(name, double):
    assert values(name, "cuda") == pytest.approx(values(name, "cpu"), rel=TAKEN[name], abs=1e-6)


@NEEDED
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_training_learns(precision):
    data = prepare(DataSpec(resize=14, train=320, validation=40, test=40))
    recipe = Recipe(epochs=3, batch=16, precision=precision)
    torch.manual_seed(0)
    rows = list(train(MODEL.build(), data, recipe, device="cuda", progress=False))
    assert rows[-1]["loss"] < rows[0]["loss"]
