"""The recipes of CONTRIBUTING.md, executed from its text: a routing, a model, a measure, a data set, a claim."""

import importlib
import os
import re
import runpy
import shlex
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import capsnb as cn
from capsnb import cli, installation
from capsnb.data.catalogue import SOURCES
from capsnb.evidence import plans
from capsnb.evidence.comparison import finals
from capsnb.measure.protocol import MEASURES, find
from capsnb.measure.survey import Sizes
from capsnb.nn.models import ZOO, lacks

PROJECT = Path(__file__).parents[1]
TEXT = (PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### An? ([a-z ]+)\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL))
LINES = 15  # beyond the idea itself
SECONDS = 300  # that a process may take on a busy machine
SIZES = Sizes(images=6, few=2, parts=2)


def blocks(section, language):
    return re.findall(rf"^```{language}\n(.*?)^```", SECTIONS[section], re.MULTILINE | re.DOTALL)


def files():
    """Name -> code of every file that the recipes write: blocks of one name follow each other in it."""
    found = {}
    for section in SECTIONS:
        for block in blocks(section, "python"):
            name = re.match(r"# (\w+)\.py", block)[1]
            found[name] = found.get(name, "") + block
    return found


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The folder of all the recipes' files, importable; what they register is gone afterwards."""
    folder = tmp_path_factory.mktemp("own")
    for name, code in files().items():
        (folder / f"{name}.py").write_text(code)
    kept = [(table, dict(table)) for table in (SOURCES, ZOO, MEASURES)]
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    for table, before in kept:
        table.clear()
        table.update(before)
    for name in files():
        sys.modules.pop(name, None)


def test_there_are_five_and_each_is_short():
    assert list(SECTIONS) == ["routing", "model", "measure", "data set", "claim"]
    for section in SECTIONS:
        code = blocks(section, "python")
        assert len({re.match(r"# (\w+)\.py", block)[1] for block in code}) == 1, "one file of one's own"
        lines = [line for line in code[-1].splitlines()[1:] if line and not line.startswith(("import ", "from "))]
        # the sums of a set's files are its own
        lines = [line for line in lines if not re.search(r'"[0-9a-f]{32}"', line)]
        assert len(lines) <= LINES, (section, len(lines))
        assert sum(len(block.splitlines()) for block in blocks(section, "sh")) <= 1, "one line that registers it"


def test_commands_are_those_that_there_are():
    for section in SECTIONS:
        for block in blocks(section, "sh"):
            words = shlex.split(block, comments=True)
            command, rest = cli.main, words[1:]
            if rest[0] == "--import":
                rest = rest[2:]
            while hasattr(command, "commands") and rest:
                command = command.commands[rest.pop(0)]
            known = {option for parameter in command.params for option in parameter.opts}
            assert {word for word in rest if word.startswith("--")} <= known


# routing


@pytest.fixture
def routed(own, monkeypatch):
    (line,) = blocks("routing", "sh")
    words = shlex.split(line, comments=True)
    monkeypatch.setenv(plans.ROUTINGS, words[words.index("--routing") + 1])
    return words[2 : words.index("--routing")]


def test_the_routing_is_trained_measured_and_seen_beside_the_papers(routed, tmp_path, monkeypatch):
    monkeypatch.setenv("CAPSNB_RUNS", str(tmp_path))
    seen = {}
    for number in routed:
        plan = plans.plan(number, "smoke")
        assert plan.guests and all("sparse" in name for name in plan.guests)
        assert plan.train([spec for name in plan.guests for spec in plan.specs[name]], jobs=1) == []
        seen[number] = [finals(plan, name, "accuracy", "accuracy, %") for name in plan.guests]
        for name in plan.guests:
            assert set(plan.watch) <= set(plan.get(plan.specs[name][0]).history[-1])
        monkeypatch.delenv(plans.ROUTINGS)
        without = plans.plan(number, "smoke")
        assert not without.guests and plan.protocol() == without.protocol()  # no part of a record
        monkeypatch.setenv(plans.ROUTINGS, "sparse=sparse:Sparse")
    assert seen.keys() == {"02", "04", "05"}
    assert all(0 <= value <= 100 for found in seen.values() for each in found for value in each.values())


def test_a_routing_takes_the_place_of_the_hosts_alone(own):
    sparse = importlib.import_module("sparse").Sparse()
    for number, host in {"02": "iterations/3", "04": "agreement", "05": "affine/capsnet"}.items():
        plan = plans.plan(number, "quick")
        found = plan.with_routing("mine", sparse)
        for guest, spec in zip(found.specs[found.guests[0]], plan.specs[host], strict=True):
            assert guest == replace(spec, model=replace(spec.model, routing=sparse))
        assert {name: found.specs[name] for name in plan.specs} == plan.specs
        with pytest.raises(ValueError, match="already: choose another name"):
            found.with_routing("mine", sparse)
    with pytest.raises(ValueError, match="notebook 01 compares no routings"):
        plans.plan("01", "quick").with_routing("mine", sparse)


@pytest.mark.parametrize(
    "text", ["sparse", "sparse=nowhere:Sparse", "sparse=math:Sparse", "x=capsnb.nn.routing:dynamic("]
)
def test_a_routing_that_cannot_be_used_is_one_sentence(text):
    result = CliRunner().invoke(cli.main, ["run", "04", "--profile", "smoke", "--routing", text])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "name=module:Class is needed" in result.stderr and plans.ROUTINGS not in os.environ


# model


def test_the_model_owes_nothing_and_is_one_of_the_zoo(own):
    importlib.import_module("pooled")
    model = cn.create_model("pooled", size=20)
    assert lacks(model) == [] and "pooled" in cn.list_models()
    found = cn.survey(model.eval(), cn.data.prepare(cn.DataSpec(crop=20, train=20, validation=20, test=20)), SIZES)
    assert found.reasons == {}


def test_the_tests_of_the_zoo_take_the_model(own):
    """It is collected and trained by them as every other one."""
    importlib.import_module("pooled")
    learning = runpy.run_path(str(PROJECT / "tests" / "test_learning.py"))
    assert "pooled" in learning["KINDS"].values()
    digits = cn.data.prepare(cn.DataSpec(crop=learning["SIZE"], train=2000, validation=300))
    learning["test_the_model_leaves_chance"]("pooled", digits)


# measure


def test_the_measure_is_in_every_survey_and_grid(own):
    importlib.import_module("zeros")
    digits = cn.data.prepare(cn.DataSpec(train=20, validation=20, test=20))
    run = cn.load("capsnet-small")
    assert find("zeros")(run.model, digits) == {"couplings of zero": 0.0}
    assert ("ours", "couplings of zero") in cn.survey(run.model, digits, measures=[MEASURES["zeros"]]).values


# data set


def bars(count):
    """The images and labels of the recipe's set: a bright row for each class."""
    labels = (np.arange(count) % 10).astype(np.uint8)
    images = np.zeros((count, 28, 28), np.uint8)
    images[np.arange(count), 8 + labels, 4:24] = (100 + np.arange(count) * 7 % 150)[:, None]
    return images, labels


@pytest.fixture(scope="module")
def sets(own):
    """A folder of image sets with the recipe's, in files as MNIST's."""
    folder = own / "sets" / "bars"
    folder.mkdir(parents=True)
    for part, count in {"train": 60_000, "t10k": 10_000}.items():
        images, labels = bars(count)
        for name, array, magic in (("images-idx3-ubyte", images, 2051), ("labels-idx1-ubyte", labels, 2049)):
            head = struct.pack(f">{1 + array.ndim}I", magic, *array.shape)
            (folder / f"{part}-{name}").write_bytes(head + array.tobytes())
    return folder.parent


def test_the_set_is_registered_with_the_sums_of_its_files(own, sets, monkeypatch):
    importlib.import_module("bars")
    found = cn.load_data("bars", data_dir=sets)
    assert (len(found.train), len(found.validation), len(found.test)) == (55_000, 5_000, 10_000)
    assert found.classes == tuple(f"row {number}" for number in range(8, 18))
    rows = {row["name"]: row for row in cn.data.available(sets)}
    assert (rows["bars"]["train"], rows["bars"]["note"][:18]) == (55_000, "bars at ten height")
    others = SOURCES["bars"].md5 | {"t10k-labels-idx1-ubyte": "0" * 32}
    monkeypatch.setitem(SOURCES, "bars", replace(SOURCES["bars"], md5=others))
    with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte.*MD5"):
        cn.load_data("bars", data_dir=sets)


# claim


def test_the_claim_is_judged_where_it_is_shown(own, tmp_path, monkeypatch):
    monkeypatch.setattr("capsnb.measure.observations.store_folder", lambda: tmp_path)
    shown = {}
    exec((own / "claim.py").read_text().replace("\ntable(", "\nshown = table("), shown)
    assert "supported" in str(shown["shown"].rows if hasattr(shown["shown"], "rows") else shown["shown"])


# all of them at once, in processes that somebody else started

GRID = """
measures = ["accuracy", "zeros"]
[base]
model = "pooled"
"model.routing" = { type = "sparse:Sparse" }
"data.name" = "bars"
"data.resize" = 14
"data.train" = 200
"data.validation" = 50
"data.test" = 50
"model.size" = 14
"recipe.epochs" = 1
[grid]
seed = [0, 1]
"""


def test_workers_know_what_was_registered(own, sets, tmp_path):
    names = ("bars", "pooled", "sparse", "zeros")
    for name in names:
        (tmp_path / f"{name}.py").write_text((own / f"{name}.py").read_text())
    (tmp_path / "grid.toml").write_text(GRID)
    own_modules = [word for name in names for word in ("--import", name)]
    words = ["sweep", "grid.toml", "--jobs", "2", "--out", "rows.csv", "--data", str(sets)]
    process = subprocess.run(
        [sys.executable, "-m", "capsnb.cli", *own_modules, *words],
        cwd=tmp_path,
        env=os.environ | {"CAPSNB_RUNS": str(tmp_path / "runs")},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert process.returncode == 0, process.stderr
    rows = pd.read_csv(tmp_path / "rows.csv")
    assert rows["error"].isna().all() and len(rows) == 2
    assert rows["couplings of zero"].between(0, 1).all()


def test_a_module_that_is_not_there_is_one_sentence():
    result = CliRunner().invoke(cli.main, ["--import", "nowhere", "checkpoints", "list"])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert (
        "CAPSNB_IMPORT names nowhere, which cannot be imported" in result.stderr
        and installation.IMPORT not in os.environ
    )
