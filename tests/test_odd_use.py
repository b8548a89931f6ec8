"""Networks, routings and weights as people have them: each odd one is taken as meant, or refused in a sentence."""

import math
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from test_data import error, no_data_folder, own  # noqa: F401
from test_odd_data import POINTER, folder, noise

from capsnb.data import DataSpec, ImageSet, Split, folder_of_sets, prepare
from capsnb.disk import make_folder
from capsnb.evidence import plans, sweep
from capsnb.nn.layers import RoutedCapsules
from capsnb.nn.models import ZOO, CapsNetConfig, StridedStem
from capsnb.nn.routing import Attention, SelfAttention, Uniform
from capsnb.training import files, fit, loop, runs
from capsnb.training.evaluation import evaluate, predict
from capsnb.training.identity import encode
from capsnb.training.recipe import Diverged, Recipe
from capsnb.training.spec import Spec
from capsnb.training.weights import load_weights, start_from

SMALL = CapsNetConfig(size=16, classes=3, stem=StridedStem(channels=4, kernel=5, types=2), decoder="none")
BRIEF = Recipe(epochs=1, batch=16)


@pytest.fixture
def three(tmp_path):
    """A folder of three classes, 16x16 grey."""
    from PIL import Image

    return folder(tmp_path / "three", lambda c, n: Image.fromarray(noise(40 * c + n)), classes=("a", "b", "c"))


def test_a_network_that_does_not_fit_the_images_is_refused_before_it_is_made(three, tmp_path, monkeypatch):
    with error(ValueError, "three has images 1x16x16 of 3 classes, the model takes 1x16x16 of 10: give it classes=3$"):
        next(runs.follow(Spec(model=replace(SMALL, classes=10), data=DataSpec(name=three)), root_folder=tmp_path))
    wrong = replace(SMALL, channels=3, size=28, classes=2)
    with error(ValueError, "takes 3x28x28 of 2: give it channels=1, size=16, classes=3$"):
        list(runs.follow(Spec(model=wrong, data=DataSpec(name=three)), root_folder=tmp_path))
    with error(ValueError, "give it classes=3$"):
        next(loop.train(replace(SMALL, classes=10).build(), prepare(DataSpec(name=three)), BRIEF))
    assert fit.following(replace(SMALL, size=28, classes=10), prepare(DataSpec(name=three)), ()) == SMALL
    assert not list(tmp_path.rglob("model.pt"))


def test_a_set_without_training_images_says_what_to_train_on(three):
    images = prepare(DataSpec(name=three))
    empty = images.train.select(torch.arange(0))
    with error(ValueError, "three has no train images", "user's own images"):
        fit.check(SMALL, replace(images, train=empty))
    with error(ValueError, "three has no validation images"):
        next(loop.train(SMALL.build(), replace(images, validation=empty), BRIEF))


def test_weights_that_are_no_numbers_after_the_last_step_are_never_saved(three, tmp_path, monkeypatch):
    class Spoil:
        def after_step(self, model, moment):
            if moment.step == 3:
                with torch.no_grad():
                    model.get_submodule("class").weight[0, 0, 0, 0] = math.nan

        def state_dict(self):
            return {}

    training = loop.Training(SMALL.build(), prepare(DataSpec(name=three)), BRIEF)
    training.hooks = [Spoil()]
    with pytest.raises(Diverged, match=r"class\.weight has values that are no finite numbers after step 3 "):
        list(training.rows(progress=False))
    with error(ValueError, "scores of 12 of 12 images are no finite numbers"):
        evaluate(training.model, training.data.test)
    with error(ValueError, "scores of 12 of 12 images are no finite numbers"):
        predict(training.model, training.data.test)


# routing


@dataclass(frozen=True)
class Gives:
    """A routing that returns something."""

    what: str

    def __call__(self, votes, combine, prior=None):
        even = votes.new_full(votes.shape[:3], 1 / votes.shape[2])
        made = {
            "poses": lambda: combine(even, votes),
            "no batch": lambda: even[0],
            "transposed": lambda: even.transpose(1, 2),
            "nothing": lambda: None,
            "sevens": lambda: 7 * even,
            "less": lambda: even / 2,
        }
        return made[self.what]()


@pytest.mark.parametrize(
    "what, got",
    [("poses", "(2, 4, 8)"), ("no batch", "(6, 4)"), ("transposed", "(2, 4, 6)"), ("nothing", "a NoneType")],
)
def test_a_coupling_of_another_shape_is_refused_at_the_first_call(what, got):
    layer = RoutedCapsules(6, 5, 4, 8, routing=Gives(what))
    with pytest.raises(ValueError) as raised:
        layer(torch.rand(2, 6, 5))
    assert str(raised.value) == f"the coupling of Gives must be (B, I, J), here (2, 6, 4), got {got}"


def test_children_that_spend_more_than_1_are_said_once():
    layer = RoutedCapsules(6, 5, 4, 8, routing=Gives("sevens"))
    with pytest.warns(UserWarning, match="Gives: a child spends 7 over its parents, more than 1") as told:
        layer(torch.rand(2, 6, 5))
    layer(torch.rand(2, 6, 5))
    assert len(told) == 1
    for routing in (Gives("less"), Uniform(value="1"), SelfAttention(), Attention(over="children")):
        RoutedCapsules(6, 5, 4, 8, routing=routing)(torch.rand(2, 6, 5))


def test_floats_of_0_to_255_are_refused():
    model, images = SMALL.build().eval(), torch.randint(0, 256, (4, 1, 16, 16), dtype=torch.uint8)
    with error(ValueError, "float images are in \\[0, 1\\], these go up to 25", "divide them by 255"):
        model(images.float())
    assert torch.equal(model(images.float() / 255).scores, model(images).scores)
    for kind in (torch.int64, torch.bool):
        with error(ValueError, "as uint8, or as floats in \\[0, 1\\], not torch"):
            model(images.to(kind))


# sizes that are not square


@pytest.mark.parametrize(
    "name", ["capsnet-no-decoder", "deep-rba-40", "em-16", "rescaps", "convnet-fc-28", "lin-cnn-36"]
)
def test_every_family_takes_images_that_are_not_square(name):
    config = replace(ZOO[name].config, size=(48, 36), channels=3, classes=4)
    with torch.device("meta"):
        square, model = replace(config, size=48).build(), config.build()
    assert model.image_shape == (3, 48, 36)
    if name in ("deep-rba-40", "rescaps", "em-16"):
        model = config.build().eval()
        output = model(torch.zeros(2, 3, 48, 36, dtype=torch.uint8))
        assert output.scores.shape == (2, 4) and output.scores.isfinite().all()
    counts = [sum(p.numel() for p in each.parameters()) for each in (square, model)]
    assert counts[0] >= counts[1]
    tall = replace(config, size=(36, 48)).build().eval() if name == "em-16" else None
    if tall is not None:
        assert tall.primary.grid == (18, 24, 8)


def test_images_are_cropped_resized_and_padded_to_any_shape(tmp_path):
    from PIL import Image

    def mixed(c, n):
        return Image.fromarray(noise(n, (30 + n, 20 + 2 * c)))

    name = folder(tmp_path / "mixed", mixed)
    images = prepare(DataSpec(name=name, resize=(48, 64), pad=(2, 0)))
    assert images.image_shape == (1, 52, 64) and images.source.endswith("; resized to 48x64; padded by 2x0 px")
    assert prepare(DataSpec(crop=(20, 12))).image_shape == (1, 20, 12)
    for wrong in ({"resize": (48, 0)}, {"crop": (1, 2, 3)}, {"pad": (1.5, 2)}, {"resize": "48"}):
        with error(ValueError, "must be a whole number, at least . or a height and a width|must be a whole number"):
            DataSpec(**wrong)
    spec = Spec(model=replace(SMALL, size=(24, 18), classes=2), data=DataSpec(name=name, resize=(24, 18)), recipe=BRIEF)
    run = runs.get(spec, root_folder=tmp_path, progress=False)
    assert runs.load(run.folder).model.image_shape == (1, 24, 18)


# weights, settings, disks


@pytest.fixture
def weights():
    torch.manual_seed(0)
    return SMALL.build().state_dict()


def wrapped(weights):
    under = {f"module.{name}": value for name, value in weights.items()}
    return {
        "plain": weights,
        "DataParallel": under,
        "state_dict": {"state_dict": weights, "epoch": 3},
        "lightning": {"state_dict": {f"model.{name}": value for name, value in weights.items()}},
        "net of compiled": {"net": {f"_orig_mod.{name}": value for name, value in under.items()}},
    }


@pytest.mark.parametrize("how", ["plain", "DataParallel", "state_dict", "lightning", "net of compiled"])
def test_weights_in_any_usual_wrapping_are_read(weights, tmp_path, how):
    torch.save(wrapped(weights)[how], tmp_path / "model.pt")
    model = SMALL.build()
    start_from(model, load_weights(tmp_path / "model.pt"), ())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    files.write_json(tmp_path / "spec.json", encode(Spec(model=SMALL)))
    (tmp_path / "history.csv").write_text("epoch,step,validation accuracy\n1.0,3,0.5\n")
    run = runs.load(tmp_path, device="cpu")
    assert torch.equal(run.model.state_dict()["class.weight"], weights["class.weight"])
    assert repr(run) == f"Run(CapsNet, 1 epochs, validation accuracy 0.5000, {tmp_path})"


def test_weights_that_do_not_fit_are_one_sentence(weights, tmp_path):
    files.write_json(tmp_path / "spec.json", encode(Spec(model=replace(SMALL, classes=2))))
    torch.save(weights, tmp_path / "model.pt")
    with error(
        ValueError, "class.weight is \\(32, 8, 3, 16\\) there and \\(32, 8, 2, 16\\) here; move it away"
    ) as raised:
        runs.load(tmp_path)
    assert "\n" not in str(raised.value)
    torch.save(SMALL.build(), tmp_path / "model.pt")
    with error(ValueError, "model.pt holds Python objects, such as a whole model", "save model.state_dict()"):
        runs.load(tmp_path)
    (tmp_path / "model.pt").write_text(POINTER)
    with error(ValueError, "model.pt is a pointer of Git LFS"):
        runs.load(tmp_path)


@pytest.mark.parametrize(
    "make", [lambda: Spec(model=SMALL, seed="3"), lambda: Recipe(epochs="3"), lambda: Recipe(batch=8.5)]
)
def test_settings_of_another_type_are_one_sentence(make):
    with error(ValueError, "(seed|epochs|batch) = .*: (a whole number|int) is needed"):
        make()


def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path, monkeypatch):
    files.save(tmp_path / "state.pt", {"a": torch.zeros(3)})
    before = (tmp_path / "state.pt").read_bytes()
    for raised in (
        OSError(28, "No space left on device"),
        RuntimeError("PytorchStreamWriter failed writing file data/0"),
    ):

        def full(content, file, raised=raised):
            file.write_bytes(b"half")
            raise raised

        monkeypatch.setattr(torch, "save", full)
        with error(OSError, "state.pt could not be written", "MB are free there", "goes on"):
            files.save(tmp_path / "state.pt", {"a": torch.ones(3)})
        assert [file.name for file in tmp_path.iterdir()] == ["state.pt"]
        assert (tmp_path / "state.pt").read_bytes() == before


def test_folders_are_made_where_they_are_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_folder(Path("build/deep/er"))
    make_folder(tmp_path / "build" / "other")
    assert Path("build/deep/er").is_dir()
    monkeypatch.chdir(tmp_path / "build" / "deep")
    make_folder(tmp_path / "beside")
    for far in (tmp_path / "no" / "such", Path("/nowhere-at-all")):
        with error(ValueError, "is not there, and would be made outside of the working directory"):
            make_folder(far)
        assert not far.exists()


def test_a_huge_network_is_said_before_it_is_made():
    told = fit.heavy(CapsNetConfig(size=224))
    assert told.startswith("CapsNet has 500,391,168 parameters, about 8 GB while it trains; ")
    assert "resize" in told and "fewer types" in told
    assert fit.heavy(CapsNetConfig()) == fit.heavy(SMALL.build()) == ""
    images = ImageSet(
        "large", "x", tuple("abcdefghij"), *[Split(torch.zeros(2, 1, 224, 224, dtype=torch.uint8), torch.arange(2))] * 3
    )
    with pytest.warns(UserWarning, match="500,391,168 parameters"):
        fit.check(CapsNetConfig(size=224), images)


def test_a_huge_network_is_said_once(tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "MANY", 1000)
    model, data = replace(SMALL, classes=10), DataSpec(resize=16, train=16, validation=10, test=10)
    spec = Spec(model=model, data=data, recipe=Recipe(epochs=1))
    with pytest.warns(UserWarning, match="parameters, about") as told:
        runs.get(spec, root_folder=tmp_path, progress=False, device="cpu")
    assert len(told) == 1
    with pytest.warns(UserWarning, match="parameters, about") as told:
        list(loop.train(model.build(), prepare(data), spec.recipe, device="cpu", progress=False))
    assert len(told) == 1


def test_a_grid_follows_ones_own_images(three, tmp_path):
    (tmp_path / "grid.toml").write_text(
        '[base]\n"data.resize" = [24, 18]\n"model.decoder" = "none"\n[grid]\nseed = [0, 1]\n'
    )
    networks = sweep.read_grid(tmp_path / "grid.toml", Path(three))
    shapes = {(spec.model.image_shape, spec.model.classes, spec.data.name) for spec in networks.specs}
    assert shapes == {((1, 24, 18), 3, three)}
    (tmp_path / "given.toml").write_text(
        f'[base]\n"data.name" = "{three}"\n"model.classes" = 10\n"model.size" = [16, 16]\n'
    )
    (spec,) = sweep.read_grid(tmp_path / "given.toml").specs
    assert (spec.model.classes, spec.model.size) == (10, (16, 16))
    assert folder_of_sets(Path(three)) is None and folder_of_sets(tmp_path / "x") == tmp_path / "x"


def test_own_images_go_to_the_notebook_that_takes_them(three, tmp_path, monkeypatch):
    monkeypatch.delenv("CAPSNB_EVIDENCE", raising=False)
    for name in ("a", "b", "c"):  # however deep they lie
        (Path(three) / name).rename(tmp_path / name)
        (Path(three) / name).mkdir()
        (tmp_path / name).rename(Path(three) / name / "deeper")
    before = sorted(Path(three).rglob("*"))
    plan = plans.plan("07", "smoke", data=three)
    assert plan.settings["own"] == three and plan.data_dir is None
    (tmp_path / "sets").mkdir()
    assert plans.plan("07", "smoke", data=tmp_path / "sets").settings["own"] is None
    command = [sys.executable, "-m", "capsnb.cli"]
    for arguments in (["run", "00", "--profile", "smoke"], ["data"], ["campaign", "--hours", "1", "--dry-run"]):
        done = subprocess.run([*command, *arguments, "--data", three], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
        assert "is an image set of its own, not a folder of the sets known by name" in done.stderr
    assert sorted(Path(three).rglob("*")) == before
