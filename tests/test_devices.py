"""One device for all: models, training steps and measures on CUDA and on meta, as far as a CPU can tell.

No measure is exempt: a FakeTensor has no numbers, so that it would end a measure at its first `.item()`, but a
pretended device has them, and every measure gives there what it gives on the CPU.
"""

import copy
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from devices import MixedDevicesError, OneDevice, moved, pretended_cuda
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from capsnb.data import Augment, Batch, DataSpec, ImageSet, Split, prepare
from capsnb.data.transforms import Affine, Pairs
from capsnb.measure import attribution, catalogue, paths, sharing, visual
from capsnb.measure.protocol import MEASURES, WHILE_TRAINING, find
from capsnb.measure.survey import Sizes
from capsnb.nn import taps
from capsnb.nn.layers import RoutedCapsules
from capsnb.nn.losses import LOSSES
from capsnb.nn.models import ZOO, CapsNetConfig, MatrixCapsNetConfig, StridedStem
from capsnb.nn.precision import autocast
from capsnb.training.hooks import DecoupledDecay, FollowFitness, GrowMargin, KeepNorms
from capsnb.training.loop import Training
from capsnb.training.pruning import Lobster, Penalty, ToSparsity
from capsnb.training.recipe import Recipe

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
        output = model(images, labels)
        assert {tensor.device.type for tensor in output if tensor is not None} == {"cuda"}
        assert LOSSES[loss](output.scores, labels).device.type == "cuda"
        with torch.no_grad(), taps.record(model, *taps.names(model)) as seen:
            assert model(images).scores.device.type == "cuda"
        assert all(tensor.device.type == "cuda" for tensor in seen.values())


def hooks_for(model):
    """Every hook that the model can have."""
    routed = [part for part in model.modules() if isinstance(part, RoutedCapsules)]
    hidden = [name for name in taps.names(model) if name.endswith(".poses") and name != "class.poses"]
    follow = (
        [FollowFitness(field="temperature")] if any(hasattr(part.routing, "temperature") for part in routed) else []
    )
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


# --- numbers on a pretended device

MODEL = CapsNetConfig(size=14, stem=StridedStem(channels=4, kernel=5, types=2), hidden=((4, 8),), decoder_widths=(8,))
MATRIX = MatrixCapsNetConfig(size=14, width=4, types=2, layers=((2, 3, 1),), decoder="none")
SIZES = Sizes(images=16, few=3, parts=2)
OWN = [name for name, each in MEASURES.items() if each.function.__module__.startswith("capsnb.")]
TRAINED = [name for name in OWN if set(MEASURES[name].needs) & set(WHILE_TRAINING)]
DERIVED = {"derive": Affine(kind="c", size=14), "side": 14}  # what "derived accuracy" has to be told


def build(config):
    torch.manual_seed(0)
    return config.build()


@pytest.fixture(scope="module")
def digits():
    return prepare(DataSpec(resize=14, train=64, validation=20, test=40))


def alike(monkeypatch, taken, config, data, place):
    """What `taken(model, data)` gives on the CPU, and on a pretended CUDA with the data at that place."""
    model = build(config)
    expected = taken(copy.deepcopy(model), data)
    with pretended_cuda(monkeypatch):
        found = taken(moved(model, "cuda"), data.to(place))
        return expected, found


def test_a_pretended_device_is_strict_as_cuda_is(monkeypatch):
    here = torch.arange(6.0)
    with pretended_cuda(monkeypatch):
        there = here.to("cuda")
        assert there.device == torch.device("cuda", 0) and there.is_cuda and not here.is_cuda
        for made in (torch.zeros(2, device="cuda"), there.new_tensor([1.0]), torch.tensor([1], device=there.device)):
            assert made.is_cuda
        assert there[[1, 2]].tolist() == there[torch.tensor([1, 2])].tolist() == [1, 2]
        assert (there * torch.tensor(2.0)).sum().item() == 30
        for mixed in (lambda: here + there, lambda: here[there.long()], lambda: torch.where(there > 0, here, there)):
            with pytest.raises(MixedDevicesError):
                mixed()
        for taken in (there.numpy, lambda: np.asarray(there)):
            with pytest.raises((RuntimeError, TypeError)):
                taken()
        assert there.cpu().numpy()[5] == 5
        there.requires_grad_()
        (there.square().sum() + there.to("cpu").sum()).backward()
        assert there.grad.is_cuda and there.grad.tolist() == [1, 3, 5, 7, 9, 11]


@pytest.mark.parametrize("place", ["cuda", "cpu"])
@pytest.mark.parametrize("name", [name for name in OWN if name not in TRAINED])
def test_a_measure_gives_on_cuda_what_it_gives_on_a_cpu(name, place, digits, monkeypatch):
    measure = find(name)
    settings = SIZES.of(measure) | (DERIVED if name == "derived accuracy" else {})
    taken = lambda model, data: measure(model, data, **settings)  # noqa: E731
    data = digits
    if name == "shift manifold":  # a digit needs room to move
        data = prepare(DataSpec(resize=6, derive=Pairs(size=14, train=20, validation=20, test=20)))
        settings |= {"sets": 1, "seeds": 1, "radius": 3}  # what t-SNE costs grows with the grid
    expected, found = alike(monkeypatch, taken, MODEL, data, place)
    assert str(found) == str(expected), "the CPU computes both, rounding included"


@pytest.mark.parametrize("name", ["certainty", "path", "part-whole", "keys", "parse tree"])
def test_a_measure_of_matrix_capsules_does_so_too(name, digits, monkeypatch):
    measure = find(name)
    taken = lambda model, data: measure(model, data, **SIZES.of(measure))  # noqa: E731
    expected, found = alike(monkeypatch, taken, MATRIX, digits, "cuda")
    assert str(found) == str(expected)


def heatmaps(model, data):
    images, units = data.test.images[:3], torch.tensor([[0, 3]] * 3)
    return [attribution.gradcam(model, images, units=units).maps.cpu()]


def moved_features(model, data):
    split = catalogue.first(data.test, 40)
    found = visual.visual_effects(model, split, [-0.1, 0.0, 0.1], classes=10, images=1, shuffle=0)
    return [*found, *visual.shuffled_dimensions(found)]


def shared_units(model, data):
    ranking = paths.rank(model, data.validation, paths.Reading(), classes=10)
    sets = sharing.unit_sets(sharing.shuffled(ranking), 3)
    strength = sharing.activation_by_sharing(model, data.test, sets, paths.Reading())
    return [*strength, sharing.sharing_follows(sharing.sharing(sets).pairs, sharing.class_similarity(data.test, 10))]


@pytest.mark.parametrize("place", ["cuda", "cpu"])
@pytest.mark.parametrize("taken", [heatmaps, moved_features, shared_units])
def test_what_is_no_measure_yet_does_so_too(taken, place, digits, monkeypatch):
    expected, found = alike(monkeypatch, taken, MODEL, digits, place)
    assert str(found) == str(expected)


HOOKS = {
    "interventions": (KeepNorms(), DecoupledDecay(weight_decay=0.1), FollowFitness(field="temperature", images=20)),
    "lobster": (Lobster(penalty=Penalty(strength=0.1, decay=0.9), above=0.0),),
    "to a sparsity": (ToSparsity(schedule=(0.3, 0.5), choose="random"), GrowMargin()),
}


class Waits(TorchDispatchMode):
    """Counts the numbers that the host waits for."""

    count = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.count += operation is torch.ops.aten._local_scalar_dense.default and args[0].is_cuda
        return operation(*args, **(kwargs or {}))


@dataclass(frozen=True)
class Twice:
    """A routing whose children spend 2 over their parents."""

    def __call__(self, votes, combine, prior=None):
        return votes.new_full(votes.shape[:3], 2 / votes.shape[2])


def test_a_coupling_is_looked_at_on_cuda_before_the_first_step_and_in_none(digits, monkeypatch):
    model = build(replace(MODEL, routing=Twice()))
    with pretended_cuda(monkeypatch):
        model, data = moved(model, "cuda"), digits.to("cuda")
        with pytest.warns(UserWarning, match="Twice: a child spends 2 over its parents, more than 1") as told:
            training = Training(model, data, Recipe(epochs=1, batch=4), device="cuda")
        assert len(told) == 2  # the hidden layer's and the class layer's
        with Waits() as waits:
            for start in (0, 4):
                training._step(data.train.batch(torch.arange(start, start + 4, device="cuda")))
    assert waits.count == 0


def test_floats_of_0_to_255_are_refused_on_cuda_too_at_a_models_first_call(digits, monkeypatch):
    model, images = build(MODEL), digits.test.images[:2].float()
    with pretended_cuda(monkeypatch):
        model, images = moved(model, "cuda"), images.to("cuda")
        with pytest.raises(ValueError, match=r"float images are in \[0, 1\], these go up to 25"):
            model(images)
        model(images / 255)
        with Waits() as waits:
            model(images / 255)
    assert waits.count == 0


@pytest.mark.parametrize("hooks", HOOKS)
def test_a_training_gives_on_cuda_what_it_gives_on_a_cpu(hooks, digits, monkeypatch):
    loss = "spread" if hooks == "to a sparsity" else "margin"
    recipe = Recipe(epochs=2, batch=16, report_every=3, hooks=HOOKS[hooks], keep="best", augment=EVERY, loss=loss)
    watch = {f"own {name}": find(name).watched(**SIZES.of(find(name))) for name in (*TRAINED, "life", "accuracy")}

    def taken(model, data):
        training = Training(model, data, recipe, device=next(model.parameters()).device)
        rows = [row | {"images/s": 0} for row in training.rows(progress=False, watch=watch)]
        assert {value.device for value in training.model.parameters()} == {training.device}
        return rows

    expected, found = alike(monkeypatch, taken, MODEL, digits, "cpu")
    assert str(found) == str(expected)
