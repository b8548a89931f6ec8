"""What the project says of itself holds: README, environment, citation, import order."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from capsnb import __version__, cli
from capsnb.evidence import report

PROJECT = Path(__file__).parents[1]
PACKAGE = PROJECT / "capsnb"
# Data flows downwards: a package imports from those before it only, wherever the import stands.
ORDER = ["places", "data", "nn", "training", "measure", "plot", "explore", "evidence", "cli"]
README = (PROJECT / "README.md").read_text(encoding="utf-8")
CONFIG = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def imports() -> dict[str, set[str]]:
    """Module or sub-package of capsnb -> those that it imports, wherever the import stands."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts == ("__init__",):
            continue
        names = found.setdefault(parts[0], set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "capsnb":
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("capsnb."):
                names.add(node.module.split(".")[1])
            elif isinstance(node, ast.Import):
                names.update(alias.name.split(".")[1] for alias in node.names if alias.name.startswith("capsnb."))
        names.discard(parts[0])
        names.discard("__version__")
    return found


def test_nothing_imports_upwards():
    found = imports()
    assert set(found) == set(ORDER)
    for package, names in found.items():
        later = names - set(ORDER[: ORDER.index(package)])
        assert not later, f"capsnb.{package} imports from {later}, which come after it"


def test_the_core_needs_torch_and_numpy_alone():
    code = """
import sys

allowed = {"torch", "numpy", "capsnb"}
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
sys.meta_path.insert(0, Blocked())
import capsnb.data.transforms, capsnb.nn.models, capsnb.training.runs
"""
    names = {re.match(r"[\w-]+", line)[0].replace("-", "_") for line in CONFIG["project"]["dependencies"]}
    modules = {"scikit_learn": "sklearn", "pillow": "PIL", "beautifulsoup4": "bs4"}
    # torch itself uses jinja2
    blocked = {modules.get(name, name) for name in names} - {"torch", "numpy", "jinja2"}
    assert {"pandas", "matplotlib", "torchvision", "scipy", "sklearn", "click", "PIL", "tqdm"} <= blocked
    process = subprocess.run([sys.executable, "-c", f"BLOCKED = {blocked!r}\n{code}"], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


def test_conda_environment_names_nothing_that_pyproject_lacks():
    environment = yaml.safe_load((PROJECT / "environment.yml").read_text(encoding="utf-8"))
    *conda, pip = environment["dependencies"]
    assert conda == [f"python{CONFIG['project']['requires-python']}", "pip"]
    assert pip == {"pip": ["-e .[test]"]}
    assert "test" in CONFIG["project"]["optional-dependencies"]


def test_citation_names_the_five_papers():
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"title", "message", "authors", "version", "license"} <= set(citation)
    assert str(citation["version"]) == __version__
    papers = citation["references"]
    assert [paper["notes"][:11] for paper in papers] == [f"notebook 0{n}" for n in range(1, 6)]
    assert all({"type", "title", "authors", "year", "identifiers"} <= set(paper) for paper in papers)
    assert all({"family-names", "given-names"} == set(author) for paper in papers for author in paper["authors"])


def test_workflows_call_make():
    found = {path.name: path.read_text(encoding="utf-8") for path in (PROJECT / ".github/workflows").glob("*.yml")}
    steps = {
        name: [s for job in yaml.safe_load(text)["jobs"].values() for s in job["steps"]] for name, text in found.items()
    }
    assert {"run": "make test"} in steps["test.yml"]
    assert {"run": "make reproduce"} in steps["nightly.yml"]
    upload = next(step for step in steps["nightly.yml"] if "upload-artifact" in step.get("uses", ""))
    assert upload["if"] == "always()"
    assert upload["with"]["path"] == "build/report.html"


def test_readme_commands_exist():
    targets = set(re.findall(r"^(\w+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    lines = [line.split("#")[0].split() for block in blocks("sh") for line in block.splitlines()]
    lines += [text.split() for text in re.findall(r"`([^`\n]+)`", README)]
    made = [line[1] for line in lines if line[:1] == ["make"] and len(line) > 1]
    assert {"reproduce", "lab", "test"} <= set(made) <= targets
    called = [line[1:] for line in lines if line[:1] == ["capsnb"]]
    assert len(called) > 8
    for words in called:
        command = cli.main
        while words and hasattr(command, "commands") and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        assert not (hasattr(command, "commands") and words), f"there is no command {words}"
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known


def test_readme_names_every_notebook():
    for path in (PROJECT / "notebooks").glob("[0-9][0-9]_*.ipynb"):
        assert f"`{path.stem}`" in README


def test_readme_results_are_those_of_the_records():
    table = report.results_table(PROJECT / "notebooks")
    assert report.fill_readme(README, table) == README, "capsnb results --readme README.md brings it up to date"


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_readme_code_runs(number, tmp_path, monkeypatch):
    monkeypatch.setenv("CAPSNB_RUNS", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # threads that wait for each other cost more than they bring here
    # a file of its own: the dataclass of a run is found again by its module
    (tmp_path / "example.py").write_text(blocks("python")[number], encoding="utf-8")
    process = subprocess.run([sys.executable, "example.py"], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert process.returncode == 0, process.stderr


def test_installed_command_shows_its_help():
    process = subprocess.run([Path(sys.executable).with_name("capsnb"), "--help"], capture_output=True, text=True)
    assert process.returncode == 0
    assert "capsnb run" in process.stdout


def test_make_refuses_an_old_python_in_one_sentence(tmp_path):
    for name in ("Makefile", "pyproject.toml"):
        (tmp_path / name).write_text((PROJECT / name).read_text(encoding="utf-8"), encoding="utf-8")
    process = subprocess.run(["make", "test", "PYTHON=false"], capture_output=True, text=True, cwd=tmp_path)
    assert process.returncode != 0
    assert process.stderr.startswith("capsnb needs Python 3.11 or newer, and 'false' is not")
    assert not (tmp_path / ".venv").exists()
