"""`import capsnb as cn`: every public name, a network in one line, what a model owes, and what others' tools take."""

import importlib
import pkgutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients, Saliency
from click.testing import CliRunner
from PIL import Image
from test_data import idx
from toys import TwoPaths

import capsnb as cn
from capsnb import cli
from capsnb.data import DataSpec, prepare
from capsnb.nn import models, taps
from capsnb.nn.models import ZOO, lacks
from capsnb.training import runs
from capsnb.training.recipe import Recipe
from capsnb.training.spec import Spec

SMALL = cn.CapsNetConfig(
    size=20, dim=4, stem=models.StridedStem(channels=4, kernel=5, types=2, dim=4), decoder_widths=(8,)
)


@pytest.fixture(scope="module")
def digits():
    return cn.load_data("mnist-sample")


@pytest.fixture(scope="module")
def sevens(digits, tmp_path_factory):
    """Three picture files of sevens, white on black, and one of them black on white, larger and not square."""
    folder = tmp_path_factory.mktemp("pictures")
    images = digits.test.images[digits.test.labels == 7][:3, 0]
    for number, image in enumerate(images):
        Image.fromarray(image.numpy()).save(folder / f"{number}.png")
    page = Image.new("L", (140, 90), 255)
    page.paste(Image.fromarray(255 - images[0].numpy()).resize((84, 84)), (28, 3))
    page.save(folder / "page.png")
    return folder


def test_every_public_name_resolves_after_all_modules_were_imported():
    for module in pkgutil.walk_packages(cn.__path__, "capsnb."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in cn.__all__:
        found = getattr(cn, name)
        assert not isinstance(found, type(sys)), f"a module hides the public {name}"
    assert cn.train is runs.get and cn.record is taps.record and callable(cn.survey)
    assert set(cn.__all__) <= set(dir(cn))
    assert cn.plot.style and cn.data.digest
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        cn.nothing  # noqa: B018 - asking is the test


def test_names_are_listed_and_packages_found_without_torch():
    code = "import sys, capsnb as cn; dir(cn); assert not {'torch', 'numpy', 'click'} & set(sys.modules); cn.evidence"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("name", list(ZOO))
def test_every_model_of_the_zoo_keeps_what_a_model_owes(name):
    with torch.device("meta"):
        model = ZOO[name].config.build()
    assert lacks(model) == []
    assert bool(model.layers) <= (model.primary is not None)
    assert not model.layers or model.layers[-1] == "class"


def test_what_a_model_lacks_is_said():
    assert lacks(TwoPaths()) == []
    assert lacks(torch.nn.Linear(2, 2))[:2] == ["no image_shape", "no stages"]
    model = TwoPaths()
    model.stages = ("conv1", "conv2")
    assert lacks(model) == ["no tap conv2"]
    model = SMALL.build()
    answer = model.answer
    model.answer = lambda pixels: (answer(pixels)[0].flatten(), answer(pixels)[1])
    model.decoder = None
    assert "scores of shape (20,), not of 2 axes with the batch first" in lacks(model)


def test_a_model_is_made_with_other_fields():
    model = cn.create_model("capsnet-no-decoder", classes=5, routing=cn.Uniform())
    assert model(torch.zeros(1, 1, 28, 28)).scores.shape == (1, 5)
    assert cn.list_models() == list(ZOO) and "capsnet-small" in cn.list_models(trained=True)
    with pytest.raises(ValueError, match="no model 'capsnet-n'; did you mean"):
        cn.create_model("capsnet-n")
    with pytest.raises(ValueError, match="has no 'class'; did you mean 'classes'"):
        cn.create_model("capsnet", **{"class": 5})


def test_files_and_arrays_of_one_picture_and_of_many(digits, sevens):
    files = [sevens / f"{number}.png" for number in range(3)]
    found = cn.predict("capsnet-small", files)
    assert found.classes == ["7", "7", "7"] and found.names == digits.classes
    assert found.scores.shape == (3, 10) and found.reconstruction.shape == (3, 1, 28, 28)
    images = digits.test.images[digits.test.labels == 7][:3]
    run = cn.load("capsnet-small")
    for given in (images, images.numpy(), images.float() / 255, list(images)):
        assert torch.equal(cn.predict(run, given).scores, found.scores)
    one = cn.predict(run.model, images[0, 0])  # (H, W)
    assert one.classes == ["7"] and torch.allclose(one.scores, found.scores[:1], atol=1e-6)
    with taps.evaluating(run.model):
        assert torch.equal(run.model(images).scores, found.scores)


def test_a_dark_picture_on_a_light_page_is_inverted_as_the_digits_are(sevens):
    assert cn.predict("capsnet-small", sevens / "page.png").classes == ["7"]
    kept = cn.predict("capsnet-small", sevens / "page.png", dark=False).images
    assert kept[0, 0, 0].mean() > 0.9


def test_what_is_predicted_is_framed_as_the_training_was(digits, sevens, tmp_path):
    spec = Spec(model=SMALL, data=DataSpec(crop=20, train=64, validation=20, test=20), recipe=Recipe(epochs=1))
    run = cn.train(spec, root_folder=tmp_path, progress=False, device="cpu")
    framed = prepare(DataSpec(crop=20)).test.images
    expected = cn.predict(run.model, framed[:4]).scores
    assert torch.equal(cn.predict(run, framed[:4]).scores, expected)
    assert torch.equal(cn.predict(run.folder, digits.test.images[:4]).scores, expected)
    seven = cn.predict(run, str(sevens / "0.png"))
    assert torch.equal(seven.images[0], framed[digits.test.labels == 7][0].float() / 255)


@pytest.mark.parametrize(
    "data", [{"resize": (24, 20)}, {"resize": (20, 16), "pad": (2, 1)}, {"crop": 12, "resize": 20}]
)
def test_a_file_is_seen_as_the_files_of_the_training_were(data, tmp_path):
    """Stretched to another shape, with a margin, or cropped: a wide picture of a folder, and the folder's own image."""
    sizes = [(30, 18)] if "crop" in data else [(30, 18), (18, 30), (40, 40)]
    smooth = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3), dtype=np.uint8)
    files = []
    for number, pixels in enumerate(smooth):
        files.append(tmp_path / "own" / "ab"[number % 2] / f"{number:02}.png")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(pixels).resize(sizes[number % len(sizes)], Image.Resampling.BICUBIC)
        image.convert("RGB" if number % 2 else "L").save(files[-1])
    spec = DataSpec(name=str(tmp_path / "own"), **data)
    images = prepare(spec)
    model = replace(SMALL, channels=3, size=images.image_shape[1:], classes=2)
    run = cn.train(Spec(model=model, data=spec, recipe=Recipe(epochs=1)), root_folder=tmp_path, progress=False)
    train = [file for c in "ab" for file in sorted((tmp_path / "own" / c).iterdir())]
    every = torch.cat([images.train.images, images.validation.images, images.test.images])
    for file in train[:3] + train[-3:]:
        seen = (cn.predict(run, file, dark=False).images[0] * 255).round()
        assert (every == seen).flatten(1).all(1).any(), f"{file.name} is no image of the set"


def test_a_set_that_is_read_only_is_looked_at_without_a_warning(tmp_path):
    """IDX files are mapped as they are: torch warns once in a process of an array that cannot be written."""
    script = """
import sys, warnings
from capsnb.data import DataSpec
from capsnb.training.use import _Learned
warnings.simplefilter("error")
print(_Learned.from_spec(DataSpec(name=sys.argv[1])).dark)
"""
    pixels = np.zeros((12, 8, 8), np.uint8)
    pixels[:, 2:5, 2:5] = np.arange(12, dtype=np.uint8)[:, None, None] * 20
    (tmp_path / "own").mkdir()
    for part in ("train", "t10k"):
        (tmp_path / "own" / f"{part}-images-idx3-ubyte").write_bytes(idx(pixels))
        (tmp_path / "own" / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(12, dtype=np.uint8) % 2))
    told = subprocess.run([sys.executable, "-c", script, tmp_path / "own"], capture_output=True, text=True)
    assert (told.stdout.strip(), told.returncode) == ("True", 0), told.stderr


def test_what_cannot_be_predicted_is_one_sentence(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    for pictures, words in {
        tmp_path / "text.png": "text.png is not a picture",
        (): "there are no pictures",
    }.items():
        with pytest.raises(ValueError, match=words):
            cn.predict("capsnet-small", pictures)
    for array, words in ((torch.zeros(3, 28, 27), "takes images"), (torch.ones(28, 28) * 2, "from 0 to 1")):
        with pytest.raises(ValueError, match=words):
            cn.predict("capsnet-small", array)
    with pytest.raises(ValueError, match="neither a checkpoint"):
        cn.predict("nothing", torch.zeros(28, 28))


@pytest.mark.filterwarnings("always:.*several pages or frames")
def test_the_command_line_predicts_files(sevens, tmp_path):
    files = [str(sevens / f"{number}.png") for number in range(2)]
    result = CliRunner().invoke(cli.main, ["predict", *files, "--model", "capsnet-small"])
    assert result.exit_code == 0, result.output
    head, *rows = result.output.splitlines()
    assert head.split() == ["picture", "class", "score", "next", "its", "score"]
    assert [row.split()[:2] for row in rows] == [[file, "7"] for file in files]
    film = [Image.open(file) for file in files]
    film[0].save(tmp_path / "film.gif", save_all=True, append_images=film[1:])
    result = CliRunner().invoke(cli.main, ["predict", *2 * [str(tmp_path / "film.gif")], "--model", "capsnet-small"])
    assert (result.exit_code, result.stderr.count("Note: ")) == (0, 1), "said once"
    assert result.stderr.endswith("film.gif has several pages or frames, of which the first is taken.\n")
    (tmp_path / "a.png").write_bytes(b"")
    for words in (["nowhere.png"], [str(tmp_path / "a.png")], [files[0], "--model", "nothing"]):
        result = CliRunner().invoke(cli.main, ["predict", "--model", "capsnet-small", *words])
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


def test_a_run_with_everything_that_passed():
    model = SMALL.build()
    images = torch.randint(0, 256, (3, 1, 20, 20), dtype=torch.uint8)
    output, seen = cn.run_with_cache(model, images)
    assert set(seen) == set(taps.names(model))
    assert torch.equal(seen["class.poses"], output.poses) and model.training
    _, few = cn.run_with_cache(model, images, "primary")
    assert list(few) == ["primary"]


@pytest.mark.parametrize("method", [Saliency, IntegratedGradients])
def test_captum_takes_a_model_through_one_line(method, digits):
    run, few = cn.load("capsnet-small"), (digits.test.images[:2].float() / 255).requires_grad_()
    maps = method(cn.scores_of(run.model)).attribute(few, target=digits.test.labels[:2])
    assert maps.shape == few.shape and maps.abs().sum() > 0
    run.model(few).scores.gather(1, digits.test.labels[:2, None]).sum().backward()
    if method is Saliency:
        assert torch.allclose(maps, few.grad.abs(), atol=1e-6)
