"""One device for all: models, training steps and measures on CUDA and on meta, as far as a CPU can tell."""

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from capsnb.data import Augment, Batch, ImageSet, Split
from capsnb.nn import taps
from capsnb.nn.layers import RoutedCapsules
from capsnb.nn.losses import LOSSES
from capsnb.nn.models import ZOO
from capsnb.nn.precision import autocast
from capsnb.training.hooks import DecoupledDecay, FollowFitness, GrowMargin, KeepNorms
from capsnb.training.loop import Training
from capsnb.training.recipe import Recipe
from devices import MixedDevicesError, OneDevice, moved

EVERY = Augment(shift=2, flip=True, rotation=10, shear=5, scale=(0.9, 1.1))


def images_of(config, count, device):
    shape = (count, config.channels, config.size, config.size)
    return torch.zeros(shape, dtype=torch.uint8, device=device), torch.zeros(count, dtype=torch.long, device=device)


def test_a_mix_of_devices_is_found():
    here, there = torch.ones(3), torch.ones(3, device="meta")
    with OneDevice():
        assert (there * 2 + torch.ones(())).device.type == "meta"
        for mixed in (lambda: here + there, lambda: there[torch.arange(2)], lambda: there.to("cpu")):
            with pytest.raises(MixedDevicesError):
                mixed()


def test_autocast_is_left_out_where_there_is_none():
    with autocast(torch.device("cpu"), torch.bfloat16):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
        with autocast(torch.device("cpu"), enabled=False):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    there = torch.ones(2, 2, device="meta")
    with autocast(there.device, torch.bfloat16):
        assert (there @ there).dtype == torch.float32


# FakeTensorMode checks devices and shapes without CUDA; a backward pass would ask for its driver
@pytest.mark.parametrize("name", ZOO)
def test_a_forward_pass_and_its_loss_stay_on_cuda(name):
    config, loss = ZOO[name].config, ZOO[name].loss
    with FakeTensorMode(), OneDevice():
        model = moved(config.build(), "cuda")
        images, labels = images_of(config, 2, "cuda")
        for output in (model(images, labels), model(images)):
            assert {tensor.device.type for tensor in output if tensor is not None} == {"cuda"}
        assert LOSSES[loss](output.scores, labels).device.type == "cuda"
        with torch.no_grad(), taps.record(model, *taps.names(model)) as seen:
            model(images)
        assert all(tensor.device.type == "cuda" for tensor in seen.values())


def hooks_for(model):
    """Every hook that the model can have."""
    routed = [part for part in model.modules() if isinstance(part, RoutedCapsules)]
    hidden = [name for name in taps.names(model) if name.endswith(".poses") and name != "class.poses"]
    follow = [FollowFitness(field="temperature")] if any(hasattr(part.routing, "temperature") for part in routed) else []
    return (DecoupledDecay(weight_decay=0.1), *([KeepNorms()] if hidden else []), *follow)


@pytest.mark.parametrize("name", ZOO)
def test_a_training_step_needs_nothing_of_the_host(name, monkeypatch):
    # on meta no tensor has numbers: a copy to the host, `.item()` or a branch on a value is an error there
    config, loss = ZOO[name].config, ZOO[name].loss
    monkeypatch.setattr(torch, "Generator", lambda device: torch._C.Generator("cpu"))  # meta has none
    with torch.device("meta"):
        model = config.build()
    split = Split(*images_of(config, 4, "meta"))
    margin = (GrowMargin(),) if loss == "spread" else ()
    recipe = Recipe(epochs=1, batch=4, loss=loss, augment=EVERY, hooks=(*hooks_for(model), *margin))
    data = ImageSet("none", "without numbers", tuple(map(str, range(10))), split, split, split)
    training = Training(model, data, recipe, device="meta")
    with OneDevice():
        for index in (torch.arange(4, device="meta"), torch.arange(2, device="meta")):
            training._step(split.batch(index))
    assert training.step == 2
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_a_step_with_targets_needs_nothing_of_the_host_either():
    config = replace(ZOO["capsnet-36"].config, decoder="plain")
    with torch.device("meta"):
        model = config.build()
    images, labels = images_of(config, 3, "meta")
    pairs = Batch(images, labels[:, None].expand(-1, 2), images[:, None].expand(-1, 2, -1, -1, -1))
    split = Split(images, labels)
    data = ImageSet("none", "without numbers", tuple(map(str, range(10))), split, split, split)
    training = Training(model, data, Recipe(), device="meta")
    with OneDevice():
        training._step(pairs)
