"""The plan of notebook 05: the paper's models and sizes in full, what a profile leaves out, and what it watches."""

import pytest
import torch

from capsnb.data import prepare
from capsnb.data.transforms import Affine, Translated
from capsnb.evidence import plans
from capsnb.evidence.published import find
from capsnb.measure.robustness import derived_split
from capsnb.nn.models import ZOO, count_parameters
from capsnb.training import runs
from plans import ablations, robustness_ablations


@pytest.mark.parametrize("profile", list(plans.PROFILES))
def test_every_profile_has_the_six_models_of_table_1(profile):
    plan = plans.plan("05", profile)
    assert {f"affine/{name}" for name in ablations.SIX} <= set(plan.specs)
    assert list(plan.watch) == ["mnist accuracy", "affnist accuracy"]
    assert len(plan.seeds) == {"smoke": 1, "quick": 3, "long": 3, "full": 5}[profile]
    names = [runs.folder_of(spec).name for spec in plan.all_specs()]
    assert len(set(names)) == len(names)  # no run is named twice


@pytest.mark.parametrize("name", ablations.SIX)
def test_the_full_models_are_those_of_the_zoo(name):
    config, loss = ablations.affine_models(ablations.PAPER)[name]
    assert (config, loss) == (ZOO[f"{name}-40"].config, ZOO[f"{name}-40"].loss)


@pytest.mark.parametrize("name", ["convnet-r", "convnet-cr", "convnet-cr-sf", "capsnet"])
def test_the_full_models_of_table_5_are_those_of_the_zoo(name):
    assert ablations.semantic_models(ablations.PAPER)[name] == (ZOO[name].config, ZOO[name].loss)


def test_convnet_lk_stays_below_capsnet_on_overlapping_digits():
    models = ablations.overlap_models(ablations.PAPER)
    dense, capsnet = (count_parameters(models[name][0]) for name in ("convnet-fc-lk", "capsnet"))
    assert dense == 11_359_274 < capsnet == 11_361_808


def test_full_has_every_row_of_tables_2_to_5():
    names = set(plans.plan("05", "full").specs)
    alias = {"dynamic-routing": "aff-capsnet-dr", "unshared-transform": "capsnet-nor"}
    assert {f"affine/{alias.get(row, row)}" for row in find("gu2021/table2/affnist")} <= names
    own = {"capsnet-k9", "convnet-avg-k9", "convnet-fc-k5"}
    assert {f"kernel/{row}" for row in find("gu2021/table3/affnist") if row not in own} <= names
    assert {f"overlap/{row}" for row in find("gu2021/table4/multimnist")} <= names
    assert {f"semantic/{row}" for row in find("gu2021/table5/rotation")} <= names
    assert {f"overlap/{model}-n{count}" for model in ("capsnet", "convnet-fc-lk") for count in (1, 10, 1000)} <= names


def test_an_ablation_changes_one_thing_alone():
    models = ablations.affine_models(ablations.PAPER)
    base = vars(models["aff-capsnet"][0])
    fields = {"aff-capsnet-dr": "routing", "capsnet-nor": "shared", "no-squash": "squash"}
    fields |= {"normal-reconstruction": "decoder", "no-reconstruction": "decoder"}
    for name, field in fields.items():
        config = vars(models[name][0])
        assert [key for key in base if config[key] != base[key]] == [field]
    for name, loss in {"cross-entropy": "cross-entropy", "cross-entropy-shares": "length-cross-entropy"}.items():
        assert models[name] == (models["aff-capsnet"][0], loss)


@pytest.mark.parametrize("profile", ["smoke", "quick"])
def test_every_model_fits_its_images(profile):
    plan, prepared = plans.plan("05", profile), {}
    for specs in plan.specs.values():
        data = prepared.setdefault(specs[0].data, prepare(specs[0].data))
        with torch.no_grad():
            assert specs[0].build()(data.test.batch(torch.arange(2)).images).scores.shape == (2, 10)


def test_digits_reach_every_place_of_the_canvas_and_the_test_digits_stay_in_the_middle():
    plan = plans.plan("05", "quick")
    spec = plan.specs["affine/capsnet"][0]
    assert spec.recipe.augment.shift == 3
    data = prepare(spec.data)
    assert not data.test.images[..., :3, :].any() and not data.test.images[..., :3].any()
    assert {measure for measure, _ in plan.watch.values()} == {"derived accuracy"}
    settings = [settings for _, settings in plan.watch.values()]
    assert [each["derive"] for each in settings] == [Translated(size=20), Affine(kind="b", size=20, reach=4.0)]
    assert derived_split(data, **plan.watch["mnist accuracy"][1]).images[..., :3, :].any()


def test_the_paper_s_reach_and_target_in_full():
    plan = plans.plan("05", "full")
    assert plan.watch["affnist accuracy"][1]["derive"] == Affine(kind="b")
    assert plan.settings["target"] == 0.9922
    assert plan.settings["compactness values"]["trans-x"][0] == -5.0
    halved = plans.plan("05", "quick").settings["compactness values"]
    assert halved["trans-x"][0] == -2.5 and halved["rotation"][0] == -20.0


def test_quick_weighs_the_decoder_as_the_paper_does_per_pixel_and_draws_figure_5():
    quick, full = (plans.plan("05", profile) for profile in ("quick", "full"))
    sizes = {plan.profile: plan.settings["scale"].canvas ** 2 for plan in (quick, full)}
    weights = {plan.profile: plan.specs["affine/capsnet"][0].recipe.reconstruction_weight for plan in (quick, full)}
    assert weights["quick"] * sizes["quick"] == pytest.approx(weights["full"] * sizes["full"])
    planes = {name: specs[0].model for name, specs in quick.specs.items() if name.startswith("plane/")}
    assert list(planes) == ["plane/convnet-r", "plane/convnet-cr", "plane/convnet-cr-sf"]
    assert {model.dim for model in planes.values()} == {2}


def test_long_keeps_the_kernels_groups_and_pairs_of_tables_3_and_4_at_a_smaller_scale():
    plan = plans.plan("05", "long")
    names = set(plan.specs)
    assert {f"kernel/{row}" for row in find("gu2021/table3/affnist")} <= names
    assert {f"overlap/{row}" for row in find("gu2021/table4/multimnist")} <= names
    assert {f"groups/{share}-groups" for share in ("quarter", "half", "own", "twice")} <= names
    seen = {
        name: specs[0].recipe.epochs * specs[0].data.derive.per_image * specs[0].data.train
        for name, specs in plan.specs.items()
        if name.startswith("overlap/")
    }
    assert set(seen.values()) == {100_000}  # networks differ, and what pairs are made of, but not how many are seen
    scale = plan.settings["pair scale"]
    models = ablations.overlap_models(scale)
    dense, capsnet = (count_parameters(models[name][0]) for name in ("convnet-fc-lk", "capsnet"))
    assert 0.98 * capsnet < dense <= capsnet


@pytest.mark.parametrize(
    ("scale", "groups"), [(ablations.PAPER, [8, 16, 32, 64]), (robustness_ablations.REDUCED, [1, 2, 4, 8])]
)
def test_groups_cut_the_same_channels_otherwise(scale, groups):
    stems = [config.stem for config, _ in ablations.group_models(scale, own=True).values()]
    assert sorted(stem.types for stem in stems) == groups
    assert {stem.types * stem.dim for stem in stems} == {scale.width}
    assert ablations.group_models(scale, own=True)["own-groups"] == ablations.affine_models(scale)["aff-capsnet"]
