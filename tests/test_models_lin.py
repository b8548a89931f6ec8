"""The two networks of Lin et al. 2018: sizes by arithmetic, as many neurons in each layer, soft updates by a loop."""

from dataclasses import fields, replace

import pytest
import torch
from torch.testing import assert_close

from capsnb.nn import taps
from capsnb.nn.layers import squash
from capsnb.nn.models import ZOO, CapsNetConfig, DepthwiseStem, NeuronNetConfig, StridedStem, neuron_twin
from capsnb.nn.models.lin2018 import FIVE_LAYERS, FOUR_LAYERS, layer_sizes
from capsnb.nn.routing import Dynamic, dynamic

SMALL = CapsNetConfig(
    size=11, classes=4, dim=3, stem=StridedStem(channels=3, kernel=3, types=2, dim=3), hidden=((3, 2),), decoder="none"
)
TINY = NeuronNetConfig(size=11, classes=4, width=3, primary=6, kernel=3, hidden=(6,))
DEEP = replace(SMALL, hidden=((3, 2), (2, 5)))


def build(config, seed=0):
    torch.manual_seed(seed)
    return config.build().double()


def images(config):
    shape = (2, config.channels, config.size, config.size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_parameters_by_arithmetic():
    convolutions = (81 * 256 + 256) + (256 * 81 * 256 + 256)
    primary = 10 * 10 * 32  # 36 -> 28 -> 10
    caps1 = primary * 8 * 16 * 16
    assert ZOO["lin-36"].parameters == convolutions + caps1 + 16 * 16 * 10 * 16 == 11_924_224
    assert ZOO["lin-transfer-36"].parameters == ZOO["lin-36"].parameters + 16 * 16 * 16 * 16
    linear1 = (25_600 + 1) * 256
    assert ZOO["lin-cnn-36"].parameters == convolutions + linear1 + 257 * 10 == 11_886_090
    assert ZOO["lin-transfer-cnn-36"].parameters == ZOO["lin-cnn-36"].parameters + 257 * 256


def test_the_capsule_network_has_a_convolution_three_layers_of_capsules_and_two_routings():
    assert (FOUR_LAYERS.size, FOUR_LAYERS.stem, FOUR_LAYERS.classes) == (36, StridedStem(), 10)
    assert taps.names(build(SMALL)) == (
        "conv1", "primary", "caps1.votes", "caps1.coupling", "caps1.poses", "class.votes", "class.coupling",
        "class.poses",
    )  # fmt: skip
    assert len(FIVE_LAYERS.hidden) == len(FOUR_LAYERS.hidden) + 1


@pytest.mark.parametrize("config", [SMALL, DEEP], ids=["four", "five"])
def test_the_twin_has_as_many_neurons_in_every_intermediate_layer(config):
    capsules, neurons = (layer_sizes(build(each), images(SMALL)) for each in (config, neuron_twin(config)))
    # conv1: 9 x 9 x 3; the second map: 4 x 4 x 6, which are 32 capsules of 3
    assert list(capsules.values()) == list(neurons.values()) == [243, 96, 6, 10][: 2 + len(config.hidden)]
    assert list(neurons) == ["conv1", "conv2", "linear1", "linear2"][: 2 + len(config.hidden)]


def test_the_twins_of_the_zoo_are_twins():
    assert ZOO["lin-cnn-36"].config == neuron_twin(ZOO["lin-36"].config) == NeuronNetConfig()
    assert ZOO["lin-transfer-cnn-36"].config == NeuronNetConfig(hidden=(256, 256))


def test_the_forward_pass_by_plain_operations():
    model = build(TINY)
    state, x = model.state_dict(), images(TINY)
    first = torch.conv2d(x, state["conv1.0.weight"], state["conv1.0.bias"]).relu()
    second = torch.conv2d(first, state["conv2.0.weight"], state["conv2.0.bias"], stride=2).relu()
    linear1 = (second.flatten(1) @ state["linear1.0.weight"].T + state["linear1.0.bias"]).relu()
    with taps.record(model, "linear1", "conv2") as seen:
        output = model(x)
    assert_close(seen["linear1"], linear1)
    assert_close(seen["conv2"], second)
    assert_close(output.scores, linear1 @ state["out.weight"].T + state["out.bias"])
    assert output.poses is None and output.reconstruction is None


CHANGED = {"channels": 2, "size": 13, "classes": 5, "width": 4, "primary": 5, "kernel": 4, "hidden": (6, 3)}


@pytest.mark.parametrize("field", CHANGED)
def test_every_field_matters(field):
    assert set(CHANGED) == {each.name for each in fields(NeuronNetConfig)}
    changed = replace(TINY, **{field: CHANGED[field]})
    shapes = [[tuple(p.shape) for p in build(config).parameters()] for config in (TINY, changed)]
    assert shapes[0] != shapes[1]
    assert build(changed)(images(changed)).scores.shape == (2, changed.classes)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: replace(TINY, hidden=()), r"hidden = \(\): at least one layer"),
        (lambda: replace(TINY, hidden=(3, 0)), r"hidden = \(3, 0\)"),
        (lambda: replace(TINY, size=3).build(), "images of 3 pixels are too small"),
        (lambda: neuron_twin(replace(SMALL, hidden=())), "with a hidden layer"),
        (lambda: neuron_twin(replace(SMALL, stem=DepthwiseStem())), "on a StridedStem"),
    ],
)
def test_refuses(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize("rate", [0.01, 0.5, 1.0])
def test_the_soft_update_is_equation_3(rate):
    """c <- eta c_hat + (1 - eta) c, with c_hat of equation 2 and b of equation 1, by a loop over capsules."""
    votes = torch.randn(1, 3, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def combine(coupling, votes):
        return squash((coupling.unsqueeze(-1) * votes).sum(1))

    b = torch.zeros(3, 4, dtype=torch.float64)
    c = torch.full((3, 4), 0.25, dtype=torch.float64)
    for _ in range(5):  # 6 iterations make 6 weighted sums, of which the last one is the result
        for j in range(4):
            s = sum(c[i, j] * votes[0, i, j] for i in range(3))
            v = s.norm() ** 2 / (1 + s.norm() ** 2) * s / s.norm()
            for i in range(3):
                b[i, j] += v @ votes[0, i, j]
        exact = torch.stack([b[i].exp() / b[i].exp().sum() for i in range(3)])
        c = rate * exact + (1 - rate) * c
    coupling = dynamic(votes, combine, iterations=6, rate=rate)
    assert_close(coupling[0], c)
    assert_close(Dynamic(iterations=6, rate=rate)(votes, combine), coupling)
    assert_close(coupling.sum(-1), torch.ones(1, 3, dtype=torch.float64))
