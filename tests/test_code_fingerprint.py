"""A run made with a user's own classes or images is known by their code and content: nothing stale is taken for new."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from test_runs import SPEC

from capsnb import data
from capsnb.nn.models import CapsNetConfig
from capsnb.nn.routing import Dynamic
from capsnb.training import runs
from capsnb.training.code_fingerprint import code_fingerprint
from capsnb.training.identity import identity

SOURCE = '''
from dataclasses import dataclass, field

import helpers_of_mine
from helpers_of_mine import sharpen

SCALE = 2.0


def softly(votes):
    return votes.norm(dim=-1).softmax(-1)


class Base:
    def scale(self):
        return SCALE


@dataclass(frozen=True)
class Loudest(Base):
    """Each child listens to the loudest."""

    power: float = 1.0

    def __call__(self, votes, combine, prior=None):
        if "x" in {"x", "y", "z"}:
            return helpers_of_mine.twice(sharpen(softly(votes) ** (self.power * self.scale())))
'''
HELPERS = """
import math


def twice(coupling):
    return 2 * coupling / 2


def sharpen(coupling):
    return math.sqrt(coupling)
"""
SHOW = """
import sys
from capsnb.training.code_fingerprint import code_fingerprint
from mine import Loudest
print(code_fingerprint((1, Loudest())))
"""


def fingerprint(folder: Path, source: str = SOURCE, helpers: str = HELPERS, seed: int = 0) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "mine.py").write_text(source)
    (folder / "helpers_of_mine.py").write_text(helpers)
    environment = os.environ | {"PYTHONHASHSEED": str(seed), "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, text=True, env=environment, check=True)
    return done.stdout.strip()


def test_capsnbs_own_classes_are_known_by_name_alone():
    assert code_fingerprint(SPEC) is None
    assert code_fingerprint((CapsNetConfig(), 3, "text", None)) is None


def test_the_code_and_all_that_it_calls_of_the_users_own_decide_and_nothing_else(tmp_path):
    first = fingerprint(tmp_path / "a")
    assert len(first) == 12
    assert fingerprint(tmp_path / "b", seed=7) == first, "another folder, another order of sets"
    told = SOURCE.replace("Each child", "Every child").replace("SCALE = 2.0", "# twice\n\nSCALE = 2.0")
    assert fingerprint(tmp_path / "c", told) == first, "comments, docstrings and lines do not count"
    changed = [
        fingerprint(tmp_path / "c", SOURCE.replace(*words))
        for words in (
            ("dim=-1).softmax", "dim=-1, p=1).softmax"),  # a function that it calls
            ("SCALE = 2.0", "SCALE = 3.0"),  # a constant
            ("power: float = 1.0", "power: float = 1.5"),  # a default, which a spec's JSON leaves out
            ("return SCALE", "return SCALE + 1"),  # a base class
            ('"y", "z"', '"y", "w"'),
        )
    ]
    changed += [fingerprint(tmp_path / "c", helpers=HELPERS.replace("2 * coupling / 2", "3 * coupling / 3"))]
    changed += [fingerprint(tmp_path / "c", helpers=HELPERS.replace("sqrt", "exp"))]  # another file
    assert len({first, *changed}) == 8


def own_routing(body: str) -> type:
    """A routing of that name and module whose code differs, as after a cell of a notebook was changed and run again."""
    text = f"""
@dataclass(frozen=True)
class Mine:
    def __call__(self, votes, combine, prior=None):
        return {body}
"""
    space = {"__name__": "__main__"}
    exec("from dataclasses import dataclass" + text, space)
    return space["Mine"]


def test_a_class_of_a_notebook_that_was_changed_names_another_run():
    first, same, other = (own_routing(f"votes.norm(dim=-1).softmax({axis})")() for axis in (2, 2, 1))
    names = [runs.folder_of(replace(SPEC, model=replace(SPEC.model, routing=each))) for each in (first, same, other)]
    assert names[0] == names[1] != names[2]
    stacked = [
        runs.folder_of(replace(SPEC, start=replace(SPEC, model=replace(SPEC.model, routing=each))))
        for each in (first, other)
    ]
    assert stacked[0] != stacked[1], "a run that starts from it is another one, too"


def test_a_class_of_a_notebook_is_trained_by_a_worker_and_its_run_found_here(tmp_path):
    # joblib and dask send a class of __main__ by value, so that the worker has another class of that name and code
    short = replace(SPEC, recipe=replace(SPEC.recipe, epochs=1))
    here, there = (own_routing("votes.norm(dim=-1).softmax(2)")() for _ in range(2))
    spec, sent = (replace(short, model=replace(SPEC.model, routing=routing)) for routing in (here, there))
    made = runs.get(sent, root_folder=tmp_path, progress=False)
    run = runs.get(spec, root_folder=tmp_path, progress=False)
    assert (run.folder, run.history) == (made.folder, made.history)
    assert run.spec is spec
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(ValueError, match="Mine of __main__, which is not imported here"):
        runs.load(made.folder)


def test_images_of_ones_own_are_known_by_their_content(tmp_path):
    import numpy as np
    from PIL import Image

    def folder(name: str, ink: int = 200) -> str:
        for label, value in {"dark": 20, "light": ink}.items():
            (tmp_path / name / "set" / label).mkdir(parents=True)
            for number in range(3):
                Image.fromarray(np.full((6, 6), value + number, np.uint8)).save(
                    tmp_path / name / "set" / label / f"{number}.png"
                )
        return str(tmp_path / name / "set")

    first, copy, other = folder("a"), folder("b"), folder("c", ink=201)
    named = [runs.folder_of(replace(SPEC, data=replace(SPEC.data, name=name))).name for name in (first, copy, other)]
    assert named[0] == named[1] != named[2]
    (tmp_path / "b" / "set" / "readme.txt").write_text("no image")
    assert data.digest(copy) == data.digest(first)
    (tmp_path / "b" / "set" / "dark" / "0.png").rename(tmp_path / "b" / "set" / "dark" / "9.png")
    assert data.digest(copy) != data.digest(first)
    assert data.short_name("mnist-sample") == "mnist-sample"
    absent = replace(SPEC, data=replace(SPEC.data, name="nowhere/at/all"))
    assert identity(absent)["spec"]["data"]["name"] == "all unknown"
    archive = tmp_path / "mine.npz"
    np.savez(archive, images=np.zeros((4, 5, 5), np.uint8), labels=np.arange(4) % 2)
    assert data.short_name(str(archive)) == "mine"
    assert len(data.digest(str(archive))) == 12


def test_a_model_of_fewer_classes_than_its_images_is_refused_in_a_sentence(tmp_path):
    spec = replace(SPEC, model=replace(SPEC.model, classes=4))
    with pytest.raises(ValueError, match="of 10 classes, the model takes 1x12x12 of 4: give it classes=10"):
        runs.get(spec, root_folder=tmp_path, progress=False)


def test_only_a_class_of_ones_own_adds_code_to_what_names_a_run():
    own = replace(SPEC, model=replace(SPEC.model, routing=own_routing("votes.norm(dim=-1).softmax(2)")()))
    assert identity(replace(SPEC, model=replace(SPEC.model, routing=Dynamic(iterations=2)))).keys() == {"spec"}
    assert identity(own).keys() == {"spec", "code"}
    assert identity(own)["spec"]["model"]["routing"] == {"type": "own:Mine"}
