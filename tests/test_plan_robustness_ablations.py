"""The plan of notebook 05: the paper's models and sizes in full, its grids, what a profile leaves out."""

from dataclasses import replace

import pytest
import torch

from capsnb.data import DataSpec, prepare
from capsnb.data.transforms import Pairs, Translated
from capsnb.evidence import plans
from capsnb.evidence.published import find
from capsnb.evidence.sweep import read_grid
from capsnb.installation import project
from capsnb.nn.models import ZOO, count_parameters
from capsnb.training import runs
from plans import ablations, robustness_ablations


@pytest.mark.parametrize("profile", list(plans.PROFILES))
def test_what_each_profile_trains(profile):
    plan = plans.plan("05", profile)
    if profile != "long":
        assert {f"affine/{name}" for name in ablations.SIX} <= set(plan.specs)
        assert "affine parts" in [measure for measure, _ in plan.watch.values()]
    assert {f"semantic/{name}" for name in ablations.semantic_models(ablations.PAPER)} <= set(plan.specs)
    assert len(plan.seeds) == {"smoke": 1, "quick": 1, "long": 5, "full": 5}[profile]
    names = [runs.folder_of(spec).name for spec in plan.all_specs()]
    assert len(set(names)) == len(names)  # no run is named twice


@pytest.mark.parametrize("name", ablations.SIX)
def test_the_full_models_are_those_of_the_zoo(name):
    config, loss = ablations.affine_models(ablations.PAPER)[name]
    assert (config, loss) == (ZOO[f"{name}-40"].config, ZOO[f"{name}-40"].loss)


@pytest.mark.parametrize("name", ["convnet-r", "convnet-cr", "convnet-cr-sf", "capsnet"])
def test_the_full_models_of_table_5_are_those_of_the_zoo(name):
    assert ablations.semantic_models(ablations.PAPER)[name] == (ZOO[name].config, ZOO[name].loss)


@pytest.mark.parametrize("scale", [ablations.PAPER, robustness_ablations.PAIRS])
def test_convnet_lk_has_as_many_parameters_as_capsnet_at_every_kernel(scale):
    kernels = {5: 5, 7: 7} if scale.side == 28 else {5: 3, 7: 4}
    models = ablations.overlap_models(scale) | ablations.rival_models(scale, kernels)
    counts = {name: count_parameters(config) for name, (config, _) in models.items()}
    for kernel in ("", "-k5", "-k7"):
        assert 0.95 * counts[f"capsnet{kernel}"] < counts[f"convnet-fc-lk{kernel}"] <= counts[f"capsnet{kernel}"]
    if scale.side == 28:
        assert counts["convnet-fc-lk"] == 11_359_274 < counts["capsnet"] == 11_361_808


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


def test_quick_weighs_the_decoder_as_the_paper_does_per_pixel_and_draws_figure_5():
    quick, full = (plans.plan("05", profile) for profile in ("quick", "full"))
    sizes = {plan.profile: plan.settings["scale"].canvas ** 2 for plan in (quick, full)}
    weights = {plan.profile: plan.specs["affine/capsnet"][0].recipe.reconstruction_weight for plan in (quick, full)}
    assert weights["quick"] * sizes["quick"] == pytest.approx(weights["full"] * sizes["full"])
    planes = {name: specs[0].model for name, specs in quick.specs.items() if name.startswith("plane/")}
    assert list(planes) == ["plane/convnet-r", "plane/convnet-cr", "plane/convnet-cr-sf", "plane/capsnet"]
    assert {model.dim for model in planes.values()} == {2}


def test_a_recorded_profile_measures_what_its_figures_are_drawn_from():
    for profile in ("long", "full"):
        measures = plans.plan("05", profile).measures
        assert "redrawn" in dict(measures["semantic/capsnet"]) and "pose clouds" in dict(measures["plane/capsnet"])
        assert all("compactness by factor" in dict(each) for each in measures.values())


# --- the grids: what is written in them is what the paper's models are at that scale


def grid(name):
    found = read_grid(project() / "notebooks" / "sweeps" / f"{name}.toml")
    assert found.notebook == "05" and found.nulls and {spec.seed for spec in found.specs} == set(range(5))
    return found


def arms(found, label=lambda each: each["case"]):
    """label -> (configuration, loss), the same at every seed."""
    seen = {}
    for settings, spec in zip(found.settings, found.specs, strict=True):
        seen.setdefault(label(settings), set()).add((spec.model, spec.recipe.loss))
    assert all(len(each) == 1 for each in seen.values())
    return {name: each.pop() for name, each in seen.items()}


def recipes(found):
    """What all of a grid's trainings share besides loss, rate and places."""
    loose = {"loss": "margin", "learning_rate": 1.0, "augment": found.specs[0].recipe.augment}
    return {(spec.data, replace(spec.recipe, **loose)) for spec in found.specs}


def test_tables_1_and_2_and_the_supplement_see_the_same_digits_by_one_recipe():
    models = ablations.affine_models(robustness_ablations.GRID)
    named = {name: grid(name) for name in ("affine", "affine_ranges", "aff_capsnet")}
    assert arms(named["affine"]) == {name: models[name] for name in (*ablations.SIX, "no-squash")}
    shares = [recipes(found) for found in named.values()]
    assert all(len(each) == 1 for each in shares) and len({data for ((data, _),) in shares}) == 1
    assert {recipe.augment.shift for recipe in (spec.recipe for spec in named["affine"].specs)} == {3}
    ranges = arms(named["affine_ranges"])
    assert ranges == {name: models[name] for name in ("capsnet-nor", "convnet-avg")}
    assert {spec.recipe.augment.shift for spec in named["affine_ranges"].specs} == {1, 5}


SIZE = replace(ablations.PAPER, width=48, fc_widths=(48, 48, 24), hidden=(82, 48), decoder=(128, 256))


def test_affine_size_has_the_paper_s_images_and_the_models_of_table_1():
    found, models = grid("affine_size"), ablations.affine_models(SIZE)
    near, far = {*ablations.SIX, "no-squash"}, {"capsnet-nor", "aff-capsnet", "convnet-avg"}
    assert arms(found) == {name: models[name] for name in near}  # whatever the places they are trained on
    places = {
        (each.get("trained"), each["case"], spec.recipe.augment.shift)
        for each, spec in zip(found.settings, found.specs, strict=True)
    }
    assert places == {(None, name, 6) for name in near} | {("far", name, 10) for name in far}
    ((data, _),) = recipes(found)
    assert data == robustness_ablations.placed(SIZE, name="mnist")[0]


def test_table_3_sees_the_same_digits_by_the_same_recipe():
    found, beside = grid("kernels"), grid("affine_size")
    assert len(recipes(found)) == 1 and recipes(found) == recipes(beside)
    rates = {(each.recipe.learning_rate, each.recipe.augment) for each in found.specs}
    assert rates <= {(each.recipe.learning_rate, each.recipe.augment) for each in beside.specs}
    found, models = arms(found), ablations.affine_models(SIZE)
    for name, each in ablations.kernel_models(SIZE, (3, 11)).items():
        assert name.startswith("convnet-fc") or found[name] == each
    small = found["capsnet-k9, of small kernels"][0]
    assert small == replace(models["capsnet"][0], stem=replace(models["capsnet"][0].stem, kernel=3, depth=7))
    assert small.build().primary.capsules == models["capsnet"][0].build().primary.capsules


def sum_lengths(configs, digits, seeds):
    """name -> length of the class capsules' vote sums, mean over untrained networks."""
    sizes = {}
    for name, config in configs.items():
        lengths = []
        for seed in range(seeds):
            torch.manual_seed(seed)
            with torch.no_grad():
                poses = replace(config, decoder="none").build()(digits).poses.norm(dim=-1)
            lengths.append((poses / (1 - poses)).sqrt().mean())  # before the squash
        sizes[name] = torch.stack(lengths).mean().item()
    return sizes


def test_groups_and_couplings_start_with_sums_of_one_size():
    found = arms(grid("aff_capsnet")) | {"aff-capsnet": arms(grid("affine"))["aff-capsnet"]}
    groups = ablations.group_models(robustness_ablations.GRID)
    assert {name: found[name] for name in ("half-groups", "twice-groups")} == {
        name: groups[name] for name in ("half-groups", "twice-groups")
    }
    digits = prepare(DataSpec(resize=14, derive=Translated(size=20))).test.images[:50]
    sizes = sum_lengths({name: config for name, (config, _) in found.items()}, digits, 12)
    for name, size in sizes.items():
        assert size == pytest.approx(sizes["aff-capsnet"], rel=0.2), name


def test_so_do_the_groups_at_the_paper_s_own_size():
    found = ablations.group_models(ablations.PAPER, own=True)
    digits = prepare(DataSpec(derive=Translated(size=40))).test.images[:3]
    sizes = sum_lengths({name: config for name, (config, _) in found.items()}, digits, 24)
    for name, size in sizes.items():
        assert size == pytest.approx(sizes["own-groups"], rel=0.2), name


def test_table_4_and_its_rivals():
    scale = robustness_ablations.PAIRS
    models = ablations.overlap_models(scale)
    models.pop("normal-reconstruction")
    assert arms(grid("overlap")) == models
    rivals = {f"{name}-n1": models[name] for name in robustness_ablations.RIVALS}
    assert arms(grid("overlap_rivals")) == ablations.rival_models(scale, {5: 3, 7: 4}) | rivals
    seen = set()
    for spec in (*grid("overlap").specs, *grid("overlap_rivals").specs):
        assert isinstance(spec.data.derive, Pairs)
        seen.add(spec.recipe.epochs * spec.data.derive.per_image)
    assert seen == {20}  # networks differ, and what pairs are made of, but not how many are seen


def test_heads_squash_and_mask_are_crossed_and_the_paper_s_networks_are_among_them():
    scale = replace(robustness_ablations.HALF, width=32, decoder=(128, 256))
    found = arms(grid("heads"), lambda each: (each["head"], each["squash"], each["mask"]))
    assert len(found) == 12
    for key, name in {("linear", "no", "no"): "convnet-r", ("sum", "no", "yes"): "convnet-cr"}.items():
        config, loss = ablations.semantic_models(scale)[name]
        assert found[key] == (replace(config, squash=False), loss)
    config, loss = ablations.semantic_models(scale)["convnet-cr-sf"]
    assert found["length", "yes", "yes"] == (replace(config, squash=True), loss)
    routed = arms(grid("heads_routed"), lambda each: (each["head"], each["squash"], each["mask"]))
    assert len(routed) == 4
    assert routed["routed length", "yes", "yes"] == ablations.semantic_models(scale)["capsnet"]
    assert recipes(grid("heads")) == recipes(grid("heads_routed"))


@pytest.mark.parametrize(
    ("scale", "groups"), [(ablations.PAPER, [8, 16, 32, 64]), (robustness_ablations.REDUCED, [1, 2, 4, 8])]
)
def test_groups_cut_the_same_channels_otherwise(scale, groups):
    stems = [config.stem for config, _ in ablations.group_models(scale, own=True).values()]
    assert sorted(stem.types for stem in stems) == groups
    assert {stem.types * stem.dim for stem in stems} == {scale.width}
    assert ablations.group_models(scale, own=True)["own-groups"] == ablations.affine_models(scale)["aff-capsnet"]
