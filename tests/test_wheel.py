"""capsnb anywhere: its wheel, unpacked where nothing may be written, used from a folder of another git repository."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from capsnb import __version__

PROJECT = Path(__file__).parents[1]
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "capsnb", "data")
SECONDS = 300  # that a process may take on a busy machine

GRID = """
measures = ["accuracy"]
[base]
model = "capsnet"
"model.size" = 14
"model.dim" = 4
"model.stem" = { type = "strided-stem", channels = 4, kernel = 5, types = 2, dim = 4 }
"model.decoder_widths" = [8]
"data.resize" = 14
"data.train" = 64
"data.validation" = 20
"data.test" = 20
"recipe.epochs" = 1
[grid]
seed = [0]
"""

USE = """
import json
import warnings
from pathlib import Path

import numpy as np
import torch
from click.testing import CliRunner
from PIL import Image

import capsnb as cn
from capsnb import cli, installation
from capsnb.data import data_dir
from capsnb.evidence import Claim, Difference, published, sweep, verdict
from capsnb.explore import PerturbationExplorer
from capsnb.measure import observations
from capsnb.measure.survey import Sizes
from capsnb.nn.models import StridedStem
from capsnb.training import checkpoints, runs
from capsnb.training.provenance import circumstances

found = {"package": cn.__file__, "code": circumstances()["code"]}
found["runs"], found["data"], found["store"] = map(str, (runs.root(), data_dir(), observations.store_folder()))
digits = cn.load_data("mnist-sample")
found["checkpoints"] = {name: cn.load(name).model.image_shape for name in cn.list_models(trained=True)}
seven = digits.test.images[digits.test.labels == 7][0, 0]
Image.fromarray(seven.numpy()).save("seven.png")
found["predicted"] = cn.predict("capsnet-small", "seven.png").classes
found["published"] = str(published.lookup("gu2021/table1/parameters/capsnet"))
figures = cn.survey(cn.load("capsnet-small").model, digits, Sizes(images=4, few=2, parts=2))
found["survey"] = [len(figures.values), figures.reasons]
explorer = PerturbationExplorer("capsnet-small", index=3, values={2: 0.2})
found["explorer"] = list(explorer.reconstruction.shape)
for name, value in {"dark": 40, "light": 200}.items():
    Path("own", name).mkdir(parents=True)
    for number in range(12):
        noise = np.random.default_rng(number).integers(0, 40, (14, 14)) + value
        Image.fromarray(noise.astype(np.uint8)).save(Path("own", name, f"{number}.png"))
stem = StridedStem(channels=4, kernel=5, types=2, dim=4)
small = cn.CapsNetConfig(size=14, classes=2, dim=4, stem=stem, decoder_widths=(8,))
spec = cn.Spec(model=small, data=cn.DataSpec(name="own"), recipe=cn.Recipe(epochs=2, batch=4))
run = cn.train(spec, progress=False)
found["own"] = [str(run.folder), cn.predict(run, "own/light/0.png").names]
rule = Claim("mine", "It helps.", Difference("a", "b", "higher"), source="ours")
found["verdict"] = verdict(rule, {"a": [3.0, 3.1, 3.2], "b": [1.0, 1.2, 1.1]}).verdict
grid = sweep.read_grid("grid.toml")
found["sweep"] = [sweep.run(grid, "rows.csv", jobs=1), Path("rows.csv").read_text().count("\\n")]


def call(*words):
    result = CliRunner().invoke(cli.main, words)
    return [result.exit_code, result.stdout, result.stderr]


found["list"] = call("checkpoints", "list")
found["predict"] = call("predict", "seven.png", "--model", "capsnet-small")
lines = "run", "run 00", "results", "results open", "campaign --hours 1", "audit", "checkpoints make rem-small"
found["refused"] = {line: call(*line.split()) for line in lines}
found["elsewhere"] = call("results", "open", "--project", PROJECT)
print(json.dumps(found))
"""


def listing(folder: Path) -> dict[str, float]:
    return {str(path.relative_to(folder)): path.lstat().st_mtime for path in sorted(folder.rglob("*"))}


def environment(home: Path, installed: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CAPSNB_", "XDG_"))}
    return kept | {"HOME": str(home), "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """Built offline from a copy: what an earlier build left in the project's folder must not be found."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source = PROJECT / name
        junk = shutil.ignore_patterns("__pycache__", "cache")
        shutil.copytree(source, copy / name, ignore=junk) if source.is_dir() else shutil.copy(source, copy / name)
    code = f"from setuptools.build_meta import build_wheel; build_wheel({str(out)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=copy, check=True, capture_output=True, timeout=SECONDS)
    (file,) = out.glob("*.whl")
    return file


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory) -> Path:
    """The wheel's content, beside the pyproject.toml of somebody else, where nothing may be written."""
    folder = tmp_path_factory.mktemp("theirs") / "libraries"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    (folder / "pyproject.toml").write_text("[project]\nname = 'theirs'\n")
    subprocess.run([sys.executable, "-m", "compileall", "-q", folder], check=True, timeout=SECONDS)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield folder
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.fixture(scope="session")
def used(installed, tmp_path_factory):
    """What `USE` found, the folder it ran in, its user's home, and the installation before and after."""
    home, repository = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("repository")
    git = ["git", "-C", str(repository), "-c", "user.name=n", "-c", "user.email=e@x"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    (repository / "grid.toml").write_text(GRID)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "theirs"], check=True)
    before = listing(installed)
    process = subprocess.run(
        [sys.executable, "-c", USE.replace("PROJECT", repr(str(PROJECT)))],
        cwd=repository,
        env=environment(home, installed),
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1]), repository, home, (before, listing(installed))


def test_the_wheel_has_every_module_the_checkpoints_and_the_published_numbers(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith("dist-info/METADATA"))
    modules = {str(path.relative_to(PROJECT)) for path in (PROJECT / "capsnb").rglob("*.py")}
    assert modules <= names, "a new sub-package is to be named in pyproject.toml"
    tracked = [path for below in ("checkpoints/*/*", "published/*.csv") for path in (PROJECT / "data").glob(below)]
    shipped = {f"capsnb/shipped/{path.relative_to(PROJECT / 'data')}" for path in tracked}
    assert shipped <= names and len(shipped) > 25
    assert {"capsnb/py.typed", "capsnb/evidence/assets/report.css"} <= names
    assert not [name for name in names if name.startswith(("tests", "notebooks", "results"))]
    for head in ("Author: ", "Keywords: ", "Classifier: Typing :: Typed", "Provides-Extra: notebooks"):
        assert f"\n{head}" in metadata


def test_the_library_needs_nothing_of_jupyter():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed, notebooks = ({line.split(">")[0] for line in lines} for lines in (
        project["dependencies"], project["optional-dependencies"]["notebooks"]
    ))  # fmt: skip
    assert {"jupyterlab", "ipykernel", "ipywidgets", "papermill", "nbformat", "nbconvert"} <= notebooks
    assert not needed & notebooks and {"torch", "platformdirs"} <= needed


def test_an_installed_capsnb_does_all_that_needs_no_project(used, installed):
    found, *_ = used
    assert Path(found["package"]).parent == installed / "capsnb"
    assert set(found["checkpoints"]) >= {"capsnet-small", "deep-rba-small"}
    assert found["predicted"] == ["7"] and found["predict"][0] == 0 and "seven.png  7" in found["predict"][1]
    assert found["published"] == "13.5 M parameters"
    assert found["survey"][0] > 20 and found["survey"][1] == {}
    assert found["explorer"] == [1, 28, 28]
    assert found["own"][1] == ["dark", "light"]
    assert found["verdict"] == "supported"
    assert found["sweep"] == [[], 2]
    assert found["list"][0] == 0 and "capsnet-small" in found["list"][1]


def test_an_installed_capsnb_names_its_version_not_the_repository_around_it(used):
    found, *_ = used
    assert found["code"] == __version__


def test_an_installed_capsnb_keeps_what_it_makes_in_the_users_folders(used):
    found, repository, home, (before, after) = used
    assert before == after
    for name in ("runs", "data", "store", "own"):
        place = found[name][0] if name == "own" else found[name]
        assert Path(place).is_relative_to(home), name
    assert {path.name for path in repository.iterdir()} == {".git", "grid.toml", "seven.png", "own", "rows.csv"}


def test_what_needs_the_project_says_so_or_is_told_where_it_is(used):
    found, *_ = used
    for line, (status, _, said) in found["refused"].items():
        assert status == 2 and said.count("\n") == 1 and "without its project" in said and "--project" in said, line
    status, table, said = found["elsewhere"]
    assert status == 0 and said == "" and table.startswith("| notebook | claim |")


BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"ipywidgets", "nbformat", "nbconvert", "papermill", "bs4", "IPython"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())

import torch

import capsnb as cn
from capsnb import cli

assert cn.predict("capsnet-small", torch.zeros(28, 28)).scores.shape == (1, 10)
try:
    import capsnb.explore
except ModuleNotFoundError as error:
    print(error)
cli.main(["run", "00"])
"""


def test_without_the_notebooks_extra_one_sentence_names_it(tmp_path):
    process = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True, timeout=SECONDS)
    sentence = "is not installed; `pip install 'capsnb[notebooks]'` brings it"
    assert process.stdout == f"ipywidgets {sentence}\n"
    assert (process.returncode, process.stderr) == (2, f"Error: nbformat {sentence}.\n")
