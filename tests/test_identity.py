"""What names a run: registered names and versions, content of images and of files, code of own classes.

`python tests/test_identity.py` writes tests/defaults.json: run it when a field was added or a version was raised.
"""

import dataclasses
import importlib
import inspect
import json
import pkgutil
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from capsnb import data
from capsnb.data import Augment, DataSpec
from capsnb.data.image_set import ImageSet, Split
from capsnb.data.transforms import Affine, Pairs, Translated
from capsnb.measure.quantisation import Quantiser
from capsnb.nn.em import EM
from capsnb.nn.models import (
    CapsNetConfig,
    ConvNetAvgConfig,
    ConvNetFCConfig,
    ConvNetRConfig,
    DepthwiseStem,
    MatrixCapsNetConfig,
    NeuronNetConfig,
    ResCapsConfig,
    StridedStem,
)
from capsnb.nn.models.backbone import BackboneStem
from capsnb.nn.routing import Attention, Dynamic, SelfAttention, Uniform
from capsnb.training import identity, runs
from capsnb.training.hooks import DecoupledDecay, FollowFitness, GrowMargin, KeepNorms, PartDecay, Revival
from capsnb.training.identity import NAMES, decode, encode, key
from capsnb.training.pruning import Lobster, Penalty, ToSparsity
from capsnb.training.recipe import Recipe
from capsnb.training.spec import Spec

DEFAULTS = Path(__file__).with_name("defaults.json")
SPEC = Spec(
    model=CapsNetConfig(size=12, dim=4, stem=StridedStem(channels=4, kernel=3, types=2, dim=4), decoder="none"),
    data=DataSpec(crop=24, resize=12, train=64, validation=20, test=20),
    recipe=Recipe(epochs=2, batch=16),
)

# a value of each registered class in which something is not the default
EXAMPLES = {
    "spec": replace(SPEC, start=SPEC, reset=("class",), frozen=("conv1",), redraw=1, seed=2),
    "recipe": Recipe(augment=Augment(flip=True), hooks=(KeepNorms(floor=0.1), Lobster(parts=("class",)))),
    "data": DataSpec(name="mnist", derive=Pairs(pairs=((0, 1), (2, 3)))),
    "augment": Augment(rotation=8.0, scale=(0.9, 1.1)),
    "translated": Translated(size=44, splits=("test",)),
    "affine": Affine(kind="c", others="centred", reach=2.5),
    "pairs": Pairs(per_image=3, train=100),
    "capsnet": CapsNetConfig(stem=DepthwiseStem(capsules=3), hidden=((16, 8), (4, 8)), routing=Uniform(value="1/I")),
    "matrix-capsnet": MatrixCapsNetConfig(routing=EM(iterations=2), layers=((4, 3, 2),)),
    "rescaps": ResCapsConfig(types=(4, 4)),
    "neuron-net": NeuronNetConfig(hidden=(30, 20)),
    "convnet-fc": ConvNetFCConfig(padding="same"),
    "convnet-avg": ConvNetAvgConfig(width=8),
    "convnet-r": ConvNetRConfig(head="sum", decoder_widths=()),
    "strided-stem": StridedStem(types=3),
    "depthwise-stem": DepthwiseStem(widths=(8, 16), kernels=(5, 3, 3), strides=(2, 1, 2), pointwise=False),
    "backbone-stem": BackboneStem(weights="random", side=64),
    "dynamic": Dynamic(temperature=2.0, leaky=True),
    "attention": Attention(over="children"),
    "self-attention": SelfAttention(learned_prior=False),
    "uniform": Uniform(value="1/I"),
    "em": EM(floor=1e-3),
    "grow-margin": GrowMargin(every=10.0),
    "follow-fitness": FollowFitness(field="temperature", start=10.0),
    "decoupled-decay": DecoupledDecay(weight_decay=0.1),
    "part-decay": PartDecay(weight_decay=0.1, on="others"),
    "revival": Revival(after=3, reset=False),
    "keep-norms": KeepNorms(weight=2.0),
    "penalty": Penalty(sensitive=False, when="after"),
    "lobster": Lobster(penalty=Penalty(strength=1e-3), images=250),
    "to-sparsity": ToSparsity(schedule=(0.3, 0.6), penalty=Penalty(decay=0.5)),
    "quantiser": Quantiser(levels=128, edges="inside"),
}
# frozen classes of the same packages that hold images or are no settings: no Spec carries one
OTHERS = {"ModelConfig", "Source", "Pictures", "Split", "ImageSet", "PairSplit"}


def configurations() -> set[str]:
    """module:Class of every frozen dataclass in the packages whose settings a Spec can carry."""
    found = {"capsnb.measure.quantisation:Quantiser"}
    for package in map(importlib.import_module, ("capsnb.nn", "capsnb.data", "capsnb.training")):
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for name, kind in inspect.getmembers(importlib.import_module(info.name), inspect.isclass):
                own = kind.__module__ == info.name and dataclasses.is_dataclass(kind)
                if own and kind.__dataclass_params__.frozen and name not in OTHERS:
                    found.add(f"{info.name}:{name}")
    return found


def registered(name: str) -> type:
    module, _, kind = NAMES[name][0].partition(":")
    return getattr(importlib.import_module(module), kind)


# ---------------------------------------------------------------- names and versions


def test_every_class_that_a_spec_can_carry_has_a_name_and_every_name_a_class():
    assert {place for place, _ in NAMES.values()} == configurations()
    assert EXAMPLES.keys() == NAMES.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_value_of_each_class_comes_back_from_json(name):
    value = EXAMPLES[name]
    assert type(value) is registered(name)
    written = encode(value)
    assert len(written) > 1, "something is not the default"
    assert written["type"] == f"{name}@{NAMES[name][1]}"
    assert decode(json.loads(json.dumps(written))) == value
    assert decode(json.loads(json.dumps(written | {"type": name}))) == value, "without a version it is the present one"


def test_classes_without_a_name_other_versions_and_unknown_names_are_refused():
    split = Split(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.zeros(3, dtype=torch.long))
    with pytest.raises(
        ValueError, match=r"Split has no name in capsnb\.training\.identity\.NAMES, so no run can carry"
    ):
        encode(split)
    with pytest.raises(ValueError, match="ImageSet has no name"):
        key(replace(SPEC, model=ImageSet("made", "by hand", ("a",), split, split, split)))
    with pytest.raises(
        ValueError, match="capsnet@9 is not what this capsnb makes, which is capsnet@1: use the version"
    ):
        decode({"type": "capsnet@9"})
    with pytest.raises(ValueError, match="'capsule@1' is no registered name; there are: spec, recipe"):
        decode({"type": "capsule@1"})
    with pytest.raises(ValueError, match=r"capsnet@1 cannot be made of colour: .*unexpected keyword"):
        decode({"type": "capsnet@1", "colour": 3})
    with pytest.raises(ValueError, match=r"Theirs of their\.module, which is not imported here: import it first"):
        decode({"type": "their.module:Theirs"})
    with pytest.raises(ValueError, match="SPEC of test_identity, which is not imported here"):
        decode({"type": f"{__name__}:SPEC"})  # the configuration, not its class
    with pytest.raises(ValueError, match="cannot be part of a run's name"):
        encode(Mine(width=torch.zeros(1)))


@dataclass(frozen=True)
class Mine:
    """A user's own configuration, with one field."""

    width: int = 3
    inner: tuple[int, ...] = field(default=(1, 2))


def test_specs_survive_json_also_with_a_users_own_class():
    assert encode(Mine(width=5)) == {"type": f"{__name__}:Mine", "width": 5}
    for value in (SPEC, replace(SPEC, start=SPEC), Mine(), Mine(width=5, inner=(7,)), (Mine(), 1, None, True)):
        assert decode(json.loads(json.dumps(encode(value)))) == value


def test_every_field_changes_the_name_and_defaults_are_not_written():
    assert encode(Recipe()) == {"type": "recipe@1"}
    assert encode(Spec(model=CapsNetConfig())) == {"type": "spec@1", "model": {"type": "capsnet@1"}}
    variants = [
        replace(SPEC, model=replace(SPEC.model, routing=Dynamic(iterations=2))),
        replace(SPEC, model=replace(SPEC.model, routing=Uniform())),
        replace(SPEC, data=replace(SPEC.data, seed=1)),
        replace(SPEC, recipe=replace(SPEC.recipe, augment=Augment())),
        replace(SPEC, seed=1),
        replace(SPEC, start=SPEC),
        replace(SPEC, start=replace(SPEC, seed=1)),
        replace(SPEC, start=SPEC, reset=("class",)),
        replace(SPEC, frozen=("conv1",)),
        replace(SPEC, redraw=1),
    ]
    assert len({runs.run_name(spec) for spec in [SPEC, *variants]}) == len(variants) + 1
    changes = {
        "epochs": 3, "batch": 8, "learning_rate": 0.1, "decay": 0.5, "decay_every": 1, "decay_unit": "epochs",
        "min_learning_rate": 0.0, "weight_decay": 0.1, "loss": "bce", "reconstruction_weight": 0.0,
        "augment": Augment(), "target_accuracy": 0.5, "stop_on": "test", "patience": 1, "keep": "best",
        "precision": "bfloat16", "hooks": (GrowMargin(),), "report_every": 50, "optimizer": "adamw",
    }  # fmt: skip
    recipes = [replace(Recipe(), **{name: value}) for name, value in changes.items()]
    recipes += [Recipe(optimizer="sgd"), Recipe(optimizer="sgd", momentum=0.9)]  # which has momentum alone
    assert {*changes, "momentum"} == {entry.name for entry in fields(Recipe)}
    assert len({key(replace(SPEC, recipe=recipe)) for recipe in recipes}) == len(recipes)


def test_a_raised_version_makes_other_runs_of_that_class_alone_also_where_it_is_a_default(monkeypatch):
    given = replace(SPEC, model=replace(SPEC.model, routing=Dynamic(iterations=2)))
    uniform = replace(SPEC, model=replace(SPEC.model, routing=Uniform()))
    followed = replace(uniform, start=SPEC)
    specs = (SPEC, given, followed, uniform)
    before = [key(spec) for spec in specs]
    monkeypatch.setitem(NAMES, "dynamic", (NAMES["dynamic"][0], 2))
    after = [key(spec) for spec in specs]
    assert [first != second for first, second in zip(before, after, strict=True)] == [True, True, True, False]
    assert encode(SPEC.model)["routing"] == {"type": "dynamic@2"}
    assert decode(encode(SPEC)) == SPEC
    with pytest.raises(ValueError, match="dynamic@1 is not what this capsnb makes, which is dynamic@2"):
        decode({"type": "capsnet@1", "routing": {"type": "dynamic@1"}})


# ---------------------------------------------------------------- defaults


def defaults() -> dict[str, dict]:
    """name@version -> the default of each field, encoded; a field without one is left out."""
    found = {}
    for name, (_, version) in NAMES.items():
        values = {}
        for entry in fields(registered(name)):
            if entry.default_factory is not dataclasses.MISSING:
                values[entry.name] = encode(entry.default_factory())
            elif entry.default is not dataclasses.MISSING:
                values[entry.name] = encode(entry.default)
        found[f"{name}@{version}"] = values
    return found


def complaints(written: dict[str, dict], now: dict[str, dict]) -> list[str]:
    """A sentence for each default that is another, or that is not in the file yet."""
    how = "write the file again: python tests/test_identity.py"
    found = []
    for name, values in now.items():
        version = name.partition("@")[2]
        if name not in written:
            found.append(f"{name} is not in {DEFAULTS.name}: {how}")
            continue
        changed = [entry for entry, value in written[name].items() if entry not in values or values[entry] != value]
        for entry in changed:
            found.append(
                f"{name}.{entry} is no longer {written[name][entry]!r} by default: raise its version in "
                f"capsnb.training.identity.NAMES to {int(version) + 1}, and {how}"
            )
        found += [f"{name}.{entry} is new: {how}" for entry in values if entry not in written[name]]
    return found


def test_no_default_has_changed_without_a_new_version():
    found = complaints(json.loads(DEFAULTS.read_text()), json.loads(json.dumps(defaults())))
    assert not found, "\n".join(found)


def test_a_changed_default_is_told_apart_from_a_new_field():
    now = {"recipe@1": {"epochs": 10, "batch": 128}}
    assert complaints(now, now) == []
    (changed,) = complaints({"recipe@1": {"epochs": 20, "batch": 128}}, now)
    assert "recipe@1.epochs is no longer 20 by default: raise its version" in changed and "NAMES to 2" in changed
    (gone,) = complaints({"recipe@1": {"epochs": 10, "batch": 128, "steps": 3}}, now)
    assert "recipe@1.steps is no longer 3" in gone
    assert complaints({"recipe@1": {"epochs": 10}}, now) == [
        "recipe@1.batch is new: write the file again: python tests/test_identity.py"
    ]
    assert complaints({"recipe@0": {}}, now) == [
        "recipe@1 is not in defaults.json: write the file again: python tests/test_identity.py"
    ]


def test_a_new_field_at_its_default_leaves_every_name_as_it_was():
    added = dataclasses.make_dataclass("Recipe", [("later", int, 7)], bases=(Recipe,), frozen=True, kw_only=True)
    added.__module__ = Recipe.__module__
    assert encode(added(epochs=3)) == encode(Recipe(epochs=3))
    assert encode(added(later=8)) == {"type": "recipe@1", "later": 8}


# ---------------------------------------------------------------- content


def made(folder: Path, ink: int) -> Path:
    """A data folder with a few images under MNIST's name, as .npz files: those of IDX must be 60,000."""
    (folder / "mnist").mkdir(parents=True)
    for split, count in {"train": 60, "test": 20}.items():
        images = np.full((count, 28, 28), ink, np.uint8)
        images[:, :14] += np.arange(count, dtype=np.uint8)[:, None, None]
        np.savez(folder / "mnist" / f"{split}.npz", images=images, labels=np.arange(count) % 10)
    return folder


def test_images_of_a_known_name_are_told_apart_by_their_content(tmp_path):
    first, copy, other = made(tmp_path / "a", 3), made(tmp_path / "b", 3), made(tmp_path / "c", 9)
    spec = replace(SPEC, data=DataSpec(name="mnist", crop=24, resize=12), recipe=Recipe(epochs=1, batch=16))
    names = [runs.run_name(spec, folder) for folder in (first, copy, other)]
    assert names[0] == names[1] != names[2]
    assert all(name.startswith("capsnet-mnist-s0-") for name in names)
    found = [
        runs.get(spec, root_folder=tmp_path / "runs", data_dir=folder, progress=False, device="cpu")
        for folder in (first, copy, other)
    ]
    assert [run.folder.name for run in found] == names
    assert found[0].folder == found[1].folder and len(list((tmp_path / "runs").iterdir())) == 2
    weights = [run.model.state_dict()["conv1.0.weight"] for run in found]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_a_start_is_told_apart_by_the_images_it_saw(tmp_path):
    first, other = made(tmp_path / "a", 3), made(tmp_path / "c", 9)
    start = replace(SPEC, data=DataSpec(name="mnist", crop=24, resize=12))
    spec = replace(SPEC, start=start)  # itself on the embedded digits, which come with the project
    assert key(spec, first) != key(spec, other)


def test_a_set_that_is_not_here_has_the_name_of_its_true_content(tmp_path):
    spec = replace(SPEC, data=DataSpec(name="mnist"))
    found = identity.identity(spec, tmp_path)
    assert found["spec"]["data"] == {"type": "data@1", "name": f"mnist {data.true_digest('mnist')}"}
    assert data.true_digest("cifar10") != "unknown", "evidence is found without its images"
    assert data.true_digest("mnist") != "unknown"
    assert key(spec, tmp_path) != key(spec, made(tmp_path / "made", 3)), "these are not MNIST's true images"
    assert data.true_digest("nowhere/at/all") == "unknown"
    assert key(replace(SPEC, data=DataSpec(name="nowhere/at/all")))


def test_a_file_to_start_from_counts_by_its_content(tmp_path):
    def weights(name: str, value: float) -> str:
        folder = tmp_path / name
        folder.mkdir()
        torch.save({"conv1.0.weight": torch.full((4, 1, 3, 3), value)}, folder / "model.pt")
        return str(folder)

    first, copy, other = weights("a", 1.0), weights("b", 1.0), weights("c", 2.0)
    keys = [key(replace(SPEC, start=start)) for start in (first, copy, f"{first}/model.pt", other)]
    assert keys[0] == keys[1] == keys[2] != keys[3]
    assert keys[0] != key(SPEC)
    # also what a start itself starts from
    chain = [key(replace(SPEC, start=replace(SPEC, seed=1, start=start))) for start in (first, copy, other)]
    assert chain[0] == chain[1] != chain[2]


def own_class(module: str, body: str) -> type:
    space = {"__name__": module}
    exec(
        "from dataclasses import dataclass\n\n@dataclass(frozen=True)\nclass Mine:\n    power: float = 1.0\n\n"
        f"    def __call__(self, votes, combine, prior=None):\n        return {body}\n",
        space,
    )
    return space["Mine"]


def test_an_own_class_counts_by_its_code_and_not_by_its_module():
    soft = "votes.norm(dim=-1).softmax(2)"
    classes = own_class("theirs", soft), own_class("moved.elsewhere", soft), own_class("theirs", soft + " ** 2")
    keys = [key(replace(SPEC, model=replace(SPEC.model, routing=kind()))) for kind in classes]
    assert keys[0] == keys[1] != keys[2]
    strong = [key(replace(SPEC, model=replace(SPEC.model, routing=kind(power=2.0)))) for kind in classes[:2]]
    assert strong[0] == strong[1] != keys[0]


if __name__ == "__main__":
    DEFAULTS.write_text(json.dumps(defaults(), indent=1) + "\n")
