"""The plan of notebook 03: the paper's protocol in full, what a profile leaves out; the backbone; the models' sizes."""

import sys
from dataclasses import replace

import pytest
import torch

from capsnb.data import prepare
from capsnb.evidence import plans
from capsnb.evidence.sweep import read_grid
from capsnb.measure.protocol import find
from capsnb.measure.quantisation import Quantiser
from capsnb.nn import taps
from capsnb.nn.models import ZOO, CapsNetConfig
from capsnb.nn.models.backbone import BackboneStem, imagenet_weights
from capsnb.training import runs
from capsnb.training.pruning import Lobster, Penalty, ToSparsity, weights

MODELS = {"plain", "rem", "pull alone", "pruning alone", "l2", "magnitude", "random", "1 iteration", "fewer capsules"}
DECODERS, STACKED = {"decoder", "rem and decoder"}, {"stacked", "rem stacked", "untrained stacked"}


@pytest.mark.parametrize("profile", list(plans.PROFILES))
def test_every_profile_has_the_pair_and_watches_its_keys(profile):
    plan = plans.plan("03", profile)
    assert {"mnist/plain", "mnist/rem"} <= set(plan.specs) and plan.opens == "long"
    images = {"smoke": {"images": 60}, "quick": {"images": 1000}}.get(profile, {})
    assert plan.watch == {"curve": ("curve", {}), "keys": ("keys in training", images)}
    sizes = plan.settings["sizes"]
    assert set(sizes.get("bins", {}).items()) == set(images.items())
    plain, rem = plan.specs["mnist/plain"][0], plan.specs["mnist/rem"][0]
    (hook,) = rem.recipe.hooks
    assert isinstance(hook, Lobster) and not plain.recipe.hooks
    assert replace(rem.recipe, hooks=()) == plain.recipe and plain.recipe.keep == "last" and rem.model == plain.model
    names = [runs.folder_of(spec).name for spec in plan.all_specs()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("profile", list(plans.PROFILES))
def test_what_is_measured_takes_its_settings_and_decoders_are_asked_what_they_redraw(profile):
    plan = plans.plan("03", profile)
    assert plan.measures.keys() == plan.specs.keys()
    for variant, measured in plan.measures.items():
        for name, settings in measured:
            find(name).settings(**settings)
        names = {name for name, _ in measured}
        assert ("beyond the class" in names) == (variant.split("/")[1] in DECODERS | STACKED)
        assert {"trees by class", "keys by levels", "key information", "ideal tree"} <= names


def test_the_full_pair_is_the_released_protocol():
    plan = plans.plan("03", "full")
    recipe = plan.specs["mnist/plain"][0].recipe
    assert (recipe.learning_rate, recipe.batch, recipe.augment.shift) == (1e-3, 128, 2)
    assert recipe.learning_rate_at(10**6, 3) == pytest.approx(1e-3 * 0.99**3) and recipe.min_learning_rate == 0
    assert (recipe.patience, recipe.stop_on) == (201, "validation")
    (hook,) = plan.specs["mnist/rem"][0].recipe.hooks
    assert hook == Lobster(penalty=Penalty(strength=1e-4, decay=0.99, when="before"), twt=0.0, pwe=-1)
    assert plan.seeds == tuple(range(5))
    assert plan.specs["mnist/plain"][0].data.validation == 5500
    sets = {name.split("/")[0] for name in plan.specs}
    assert sets == {"mnist", "fashion-mnist", "cifar10", "tiny-imagenet", "affnist", "affnist, under-trained"}
    assert {name.split("/")[1] for name in plan.specs if name.startswith("mnist/")} == MODELS | DECODERS | STACKED
    assert plan.specs["cifar10/rem"][0].data.validation == 5500
    early = plan.specs["affnist, under-trained/rem"][0].recipe
    assert (early.target_accuracy, early.stop_on, early.augment.shift) == (0.9922, "test", 6)


def test_long_is_the_full_width_pair_with_all_of_the_paper_s_dose_and_smaller_ones():
    plan = plans.plan("03", "long")
    groups = {name: {key for key in plan.specs if key.startswith(f"{name}/")} for name in ("mnist", "fashion-mnist")}
    assert groups["mnist"] == {"mnist/plain", "mnist/rem"} and len(groups["fashion-mnist"]) == 2
    assert len(plan.seeds) == 3
    for name in groups["mnist"]:
        spec = plan.specs[name][0]
        assert spec.model == ZOO["rem-28"].config and spec.recipe.epochs == 12
    for name, steps in {"mnist": 426, "fashion-mnist": 426, "cifar10": 348}.items():
        (hook,) = plan.specs[f"{name}/rem"][0].recipe.hooks
        assert steps * sum(hook.penalty.rate(epoch) for epoch in range(12)) == pytest.approx(4.26, rel=0.01)
        assert plan.specs[f"{name}/plain"][0].data.validation == 5500
    assert plan.specs["mnist/rem"][0].recipe.hooks[0].penalty.strength == 8.8e-4


def test_small_networks_at_long_are_those_of_the_grid_and_decoders_are_stacked_on_them(project):
    plan, grid = plans.plan("03", "long"), read_grid(project / "notebooks/sweeps/rem_dose.toml")
    known = {(row["case"], row["seed"]): spec for row, spec in zip(grid.settings, grid.specs, strict=True)}
    assert {name.split("/")[1] for name in plan.specs if name.startswith("mnist 14")} == MODELS | DECODERS | STACKED
    for theirs in ("plain", "REM", "pull alone", "pruning alone"):
        specs = plan.specs[f"mnist 14x14/{theirs.lower()}"]
        assert [known[theirs, seed] for seed in plan.seeds] == list(specs)
    assert plan.specs["mnist 14x14/rem stacked"][0].start == known["REM", 0]
    watched = sorted((measure, dict(settings)) for measure, settings in plan.watch.values())
    assert watched == [(name, {}) for name in sorted(grid.watch)], "a run of the one is found by the other"


def test_the_grids_differ_in_pull_and_pruning_alone(project):
    dose, pull = (read_grid(project / f"notebooks/sweeps/rem_{name}.toml") for name in ("dose", "pull"))
    assert (len(set(dose.specs)), len(set(pull.specs)), dose.notebook, dose.nulls) == (20, 15, "03", True)
    assert {replace(spec, recipe=replace(spec.recipe, hooks=())) for spec in (*dose.specs, *pull.specs)} == set(
        dose.specs[:5]
    )
    hooks = {row["case"]: spec.recipe.hooks for row, spec in zip(dose.settings, dose.specs, strict=True)}
    assert hooks["plain"] == () and hooks["REM"] == (Lobster(),)
    assert hooks["pull alone"] == (ToSparsity(schedule=(0.0,), penalty=Penalty()),)
    assert hooks["pruning alone"] == (Lobster(penalty=Penalty(strength=0.0)),)
    model = dose.specs[0].model.build()
    assert model.primary.capsules == 36
    shares = [spec.recipe.hooks[0].penalty.strength / 1e-4 for spec in pull.specs[::5]]
    assert shares == pytest.approx([0.25, 0.5, 2])


@pytest.mark.parametrize("profile", ["smoke", "quick"])
def test_small_profiles_have_every_variant_of_mnist_and_each_fits_its_images(profile):
    plan = plans.plan("03", profile)
    every = MODELS | DECODERS | (STACKED if profile == "smoke" else set())
    assert {name.removeprefix("mnist/") for name in plan.specs} == every
    data = prepare(plan.all_specs()[0].data)
    for specs in plan.specs.values():
        assert specs[0].data == plan.all_specs()[0].data
        with torch.no_grad():
            assert specs[0].build()(data.test.batch(torch.arange(2)).images).scores.shape == (2, 10)
    assert len(data.test) >= plan.settings["sizes"]["bins"]["images"]


def test_a_control_changes_one_thing_alone():
    specs = {name.removeprefix("mnist/"): found[0] for name, found in plans.plan("03", "smoke").specs.items()}
    plain, rem = specs["plain"], specs["rem"]
    (lobster,) = rem.recipe.hooks
    assert specs["l2"].recipe.hooks == (replace(lobster, penalty=replace(lobster.penalty, sensitive=False)),)
    assert specs["pull alone"].recipe.hooks == (ToSparsity(schedule=(0.0,), penalty=lobster.penalty),)
    assert specs["pruning alone"].recipe.hooks == (replace(lobster, penalty=replace(lobster.penalty, strength=0.0)),)
    chosen = [specs[name].recipe.hooks[0] for name in ("magnitude", "random")]
    assert chosen == [ToSparsity(schedule=chosen[0].schedule, choose=how) for how in ("magnitude", "random")]
    assert specs["1 iteration"].model == replace(plain.model, routing=replace(plain.model.routing, iterations=1))
    assert specs["fewer capsules"].model.stem.types == max(1, plain.model.stem.types // 4)
    decoder = replace(plain.recipe, reconstruction_weight=5e-4 / 0.3081**2)  # in units of the pixels' deviation
    assert specs["decoder"].recipe == decoder and specs["rem and decoder"].recipe == replace(decoder, hooks=(lobster,))
    stacked = specs["rem stacked"]
    assert stacked.start == rem and stacked.reset == ("decoder",) and stacked.frozen == ("conv1", "primary", "class")
    untrained = specs["untrained stacked"]
    assert untrained.start is None and not untrained.reset and untrained.frozen == stacked.frozen


def test_each_seed_of_a_stacked_decoder_starts_from_its_own_encoder():
    plan = plans.plan("03", "smoke", seed=3, seeds=2)
    assert [spec.start.seed for spec in plan.specs["mnist/rem stacked"]] == [3, 4] == list(plan.seeds)
    assert [spec.start for spec in plan.specs["mnist/stacked"]] == list(plan.specs["mnist/plain"])


def test_the_printed_sparsity_and_the_released_number_of_levels():
    chosen = plans.plan("03", "full").specs["mnist/magnitude"][0].recipe.hooks[0]
    assert chosen.schedule[-1] == 0.8553
    assert 11 in find("keys by levels").defaults["levels"] and Quantiser() == Quantiser.released(10)


# ---------------------------------------------------------------- models


def test_the_models_of_the_paper_by_arithmetic():
    conv1, primary = 81 * 256 + 256, 256 * 81 * 256 + 256
    assert conv1 + primary + 1152 * 8 * 160 + 160 == 6_804_384 == ZOO["rem-28"].parameters
    assert conv1 + primary + 4608 * 8 * 160 + 160 == 11_228_064 == ZOO["rem-40"].parameters
    colour = 3 * 81 * 256 + 256 + 256 * 81 * 512 + 512 + 1024 * 8 * 160 + 160
    assert colour == 11_990_688 == ZOO["rem-24"].parameters
    for name in ("rem-28", "rem-24", "rem-40"):
        config = ZOO[name].config
        assert config.decoder == "none" and config.bias == 0.1 and config.init == "normal"
        assert config.routing.gradient == "detached" and config.routing.iterations == 3


TINY = CapsNetConfig(
    channels=3,
    size=16,
    classes=4,
    dim=4,
    decoder="none",
    stem=BackboneStem(side=32, pad=3, dim=4, kernel=3, weights="random"),
)


def test_a_frozen_backbone_never_moves():
    torch.manual_seed(0)
    model = TINY.build()
    assert model.primary.grid == (3, 3, 1)  # 1 place of the map, 7 with its padding, then 3 x 3 of stride 2
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trained = [value for value in model.parameters() if value.requires_grad]
    assert len(trained) == 3  # weight and bias of the primary capsules, transforms
    optimizer = torch.optim.Adam(trained, lr=0.1)
    model.train()
    images = torch.rand(3, 3, 16, 16)
    for _ in range(2):
        optimizer.zero_grad()
        model(images).scores.sum().backward()
        optimizer.step()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("conv1"), name  # batch norms' averages too
    assert set(weights(model)) == {"primary.conv.weight", "class.weight"}
    with taps.record(model.eval(), "conv1") as seen:
        model(images)
    assert seen["conv1"].shape == (3, 512, 7, 7)
    assert not seen["conv1"][:, :, 0].any() and seen["conv1"][:, :, 3, 3].any()


def test_the_paper_s_backbone_has_36_primary_capsules():
    config = replace(ZOO["rem-28"].config, channels=3, size=64, classes=200, stem=BackboneStem())
    with torch.device("meta"):
        model = config.build()
    assert model.primary.capsules == 36
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    assert trained == 512 * 81 * 8 + 8 + 36 * 8 * 200 * 16 + 200 * 16


def test_weights_come_from_the_cache_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.delenv("CAPSNB_DOWNLOAD", raising=False)
    with pytest.raises(ValueError, match=r"ImageNet weights are not at .*resnet18-f37072fd\.pth.*CAPSNB_DOWNLOAD=1"):
        imagenet_weights()
    with pytest.raises(ValueError, match="ImageNet weights are not at"):
        replace(TINY, stem=BackboneStem()).build()
    (tmp_path / "checkpoints").mkdir()
    from torchvision.models import resnet18

    torch.manual_seed(1)
    other = resnet18(weights=None)
    torch.save(other.state_dict(), tmp_path / "checkpoints" / "resnet18-f37072fd.pth")
    model = replace(TINY, stem=replace(TINY.stem, weights="imagenet")).build()
    assert torch.equal(model.conv1[0].layers[0].weight, other.conv1.weight)


def test_a_download_that_fails_is_told_in_a_sentence(tmp_path, monkeypatch):
    from torchvision.models import ResNet18_Weights

    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setenv("CAPSNB_DOWNLOAD", "1")
    monkeypatch.setattr(ResNet18_Weights, "get_state_dict", offline)
    with pytest.raises(ValueError, match=r"could not be downloaded \(no network\)"):
        imagenet_weights()


def test_a_backbone_says_what_it_takes():
    with pytest.raises(ValueError, match="images of 3 channels"):
        replace(TINY, channels=1).build()
    with pytest.raises(ValueError, match="'noise' is unknown; allowed: 'imagenet', 'random'"):
        BackboneStem(weights="noise")
    with pytest.raises(ValueError, match="side = 0"):
        BackboneStem(side=0)
    assert "torchvision" in sys.modules
