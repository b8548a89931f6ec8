"""What the project says of itself holds: README, environment, citation, import order."""

import ast
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
import yaml

from capsnb import __version__, cli
from capsnb.evidence import findings, ledger, sweep
from capsnb.evidence.verdicts import DECIDED
from capsnb.measure import observations
from capsnb.nn.models import ZOO
from capsnb.training.identity import key

PROJECT = Path(__file__).parents[1]
PACKAGE = PROJECT / "capsnb"
# Data flows downwards: a package imports from those before it only, wherever the import stands.
ORDER = ["installation", "disk", "data", "nn", "training", "measure", "plot", "explore", "evidence", "cli"]
README = (PROJECT / "README.md").read_text(encoding="utf-8")
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted((PROJECT / "docs").glob("*.md"))}
TEXTS = [README, *(text for name, text in PAGES.items() if name != "gallery.md")]  # what says how to use it
RESULTS = (PROJECT / "results" / "README.md").read_text(encoding="utf-8")
PIN = "owner/action@" + 40 * "0"  # a version tag can be moved
PINNED = re.compile(r"[\w-]+/[\w-]+@[0-9a-f]{40}")
MADE = ("gallery.md", "api/modules.rst")  # by the site itself
SECONDS = 300  # that a process of a test may take on a busy machine
CONFIG = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))


def blocks(language, text=README):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


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


def test_few_packages_and_no_long_module():
    entries = [path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 12, entries
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.rglob("*.py")}
    assert {str(path.relative_to(PACKAGE)): count for path, count in lines.items() if count > 350} == {}


def test_the_core_needs_torch_and_numpy_alone():
    code = """
import sys

allowed = {"torch", "numpy", "capsnb"}
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
sys.meta_path.insert(0, Blocked())
import capsnb.data.transforms, capsnb.nn.models, capsnb.training.runs, capsnb.training.pruning
"""
    wanted = [*CONFIG["project"]["dependencies"], *CONFIG["project"]["optional-dependencies"]["notebooks"]]
    names = {re.match(r"[\w-]+", line)[0].replace("-", "_") for line in wanted}
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


def test_citation_names_the_papers():
    citation = yaml.safe_load((PROJECT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"title", "message", "authors", "version", "license"} <= set(citation)
    assert str(citation["version"]) == __version__
    papers = citation["references"]
    assert [paper["notes"][:11] for paper in papers[:6]] == [f"notebook 0{n}" for n in (1, 2, 3, 4, 5, 0)]
    of_models = [re.match(r"the model (\S+)", paper["notes"])[1] for paper in papers[6:]]
    assert of_models == ["em-16", "efficient-capsnet"] and set(of_models) <= set(ZOO)
    assert all({"type", "title", "authors", "year", "identifiers"} <= set(paper) for paper in papers)
    assert all({"family-names", "given-names"} == set(author) for paper in papers for author in paper["authors"])


def test_workflows_call_make():
    found = {path.name: path.read_text(encoding="utf-8") for path in (PROJECT / ".github/workflows").glob("*.yml")}
    steps = {
        name: [s for job in yaml.safe_load(text)["jobs"].values() for s in job["steps"]] for name, text in found.items()
    }
    assert {"run": "make test"} in steps["test.yml"]
    assert {"run": "make reproduce"} in steps["nightly.yml"]
    triggers = {name: yaml.safe_load(text)[True] for name, text in found.items()}  # YAML takes "on" for true
    assert triggers["test.yml"] == {"push": {"branches": ["main"]}, "pull_request": None}  # one run for a commit
    for name, text in found.items():
        assert "concurrency" in yaml.safe_load(text), name
        assert not [step["uses"] for step in steps[name] if not PINNED.fullmatch(step.get("uses", PIN))], name
    upload = next(step for step in steps["nightly.yml"] if "upload-artifact" in step.get("uses", ""))
    assert upload["if"] == "always()"
    assert upload["with"]["path"].split() == ["build/report.html", "build/report-pages"]


def test_readme_is_short_and_begins_with_the_two_commands():
    assert len(README.splitlines()) <= 150
    first = [line.split("#")[0].strip() for line in blocks("sh")[0].splitlines()]
    assert first == ["make reproduce", "make test"]


def test_commands_of_readme_and_docs_exist():
    targets = set(re.findall(r"^(\w+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    lines = [
        line.split("#")[0].split() for text in TEXTS for block in blocks("sh", text) for line in block.splitlines()
    ]
    lines += [code.split() for text in TEXTS for code in re.findall(r"`([^`\n]+)`", text)]
    made = [line[1] for line in lines if line[:1] == ["make"] and len(line) > 1]
    assert {"reproduce", "lab", "test", "explore", "docs"} <= set(made) <= targets
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
        assert f"(notebooks/{path.name})" in README


def test_pages_name_every_notebook_and_every_page():
    assert "notebooks/*\n" in PAGES["notebooks.md"]  # a glob forgets none
    listed = {
        name for text in PAGES.values() for tree in blocks("{toctree}", text) for name in re.findall(r"[\w/]+", tree)
    }
    assert {name.removesuffix(".md") for name in PAGES} - {"index"} <= listed


def test_pictures_have_alternatives_and_are_of_modest_size():
    for text in TEXTS:
        assert all(re.search(r'alt="[^"]{20,}"', tag) for tag in re.findall(r"<img[^>]*>", text))
        assert all(len(alt) >= 20 for alt in re.findall(r"!\[([^]]*)\]\(", text))
        assert text.count("```{image}") == len(re.findall(r"^:alt: .{20,}", text, re.MULTILINE))
    assert sum(path.stat().st_size for path in (PROJECT / "docs" / "pictures").iterdir()) < 300_000


def test_readme_and_ledger_are_those_of_the_records():
    written = ledger.filled(PROJECT / "README.md", PROJECT / "notebooks")
    assert list(written) == [PROJECT / "README.md", PROJECT / "results" / "README.md"]
    for path, text in written.items():
        assert text == path.read_text(encoding="utf-8"), "capsnb results --readme README.md brings it up to date"


def anchors(page: Path) -> set[str]:
    """What a page's headings are linked by, as GitHub and myst make it of them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


def test_links_of_readme_ledger_and_docs_resolve():
    pages = [PROJECT / "docs" / name for name in PAGES if name != "gallery.md"]
    for path in (PROJECT / "README.md", PROJECT / "results" / "README.md", *pages):
        for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
            file, _, anchor = link.partition("#")
            if ":" not in link:
                # the site has a copy of the notebooks, and a page that it makes
                beside = PROJECT if file.startswith("notebooks/") else path.parent
                assert (beside / file).is_file() or file in MADE, link
                assert not anchor or anchor in anchors(beside / file), link


def test_docs_show_a_grid_that_can_be_trained(tmp_path):
    (text,) = blocks("toml", PAGES["sweeps.md"])
    (tmp_path / "grid.toml").write_text(text, encoding="utf-8")
    grid = sweep.read_grid(tmp_path / "grid.toml")
    assert len(grid.unique().specs) == 3 * 2 * 3
    for spec in grid.specs[::6]:  # one of each case
        with torch.no_grad():
            assert spec.build()(torch.zeros(2, 1, 28, 28)).scores.shape == (2, 10)


def test_readme_names_files_and_folders_that_are_there():
    for text in (*TEXTS, RESULTS, (PROJECT / "data" / "README.md").read_text(encoding="utf-8")):
        named = re.findall(r"`((?:notebooks|results|capsnb|data|benchmarks)/[\w./-]+)`", text)
        gone = [name for name in named if not (PROJECT / name).exists() and not name.startswith("data/cache")]
        assert gone == []
        for module in re.findall(r"`(capsnb(?:\.\w+)+)", text):
            assert pkgutil.resolve_name(module) is not None


def test_the_evidence_store_holds_what_its_readme_says():
    files = [observations.read(file) for file in sorted(observations.store_folder().glob("*.jsonl"))]
    claims = [(header, found) for header, found in files if "protocol" in header]
    networks = [(header, found) for header, found in files if "spec" in header]
    assert len(claims) + len(networks) == len(files)
    # what was converted names no versions of libraries; a campaign adds to it, network by network
    networks = [(header, [each for each in found if "versions" not in each.made]) for header, found in networks]
    networks = [(header, found) for header, found in networks if found]
    variants = [by_seed for _, found in claims for each in found for by_seed in each.values.values()]
    named = {(header["notebook"], each.settings["claim"]) for header, found in claims for each in found}
    assert f"of {len(named)} claims of {len({header['notebook'] for header, _ in claims})} notebooks" in RESULTS
    assert f"{len(variants)} are here, {sum(map(len, variants)):,} numbers" in RESULTS
    total, twice = (
        int(number) for number in re.search(r"- (\d+) claim values .*? (\d+) of them", RESULTS, re.S).groups()
    )
    assert total - twice == len(variants)
    recorded = {header["run"] for header, _ in networks}
    grids = [sweep.read_grid(file).unique().specs for file in (PROJECT / "notebooks" / "sweeps").glob("*.toml")]
    keys = [{key(spec) for spec in specs} for specs in grids]
    trained = [found for found in keys if found <= recorded]
    assert set().union(*trained) == recorded
    rows = sum(map(len, trained))
    text = f"{rows} networks of {len(trained)} grids (`notebooks/sweeps`): {len(recorded)} files, "
    assert text + f"as {rows - len(recorded)} networks stand in two grids" in RESULTS
    assert {len(found) for _, found in networks} == {3}
    assert sum(file.stat().st_size for file in observations.store_folder().iterdir()) < 20e6


def test_findings_have_the_verdicts_of_the_committed_notebooks():
    said = findings.CLAIM.findall(PAGES["findings.md"])
    rows = ledger.displayed(PROJECT / "notebooks")
    found = {(row["notebook"], row["claim"]): row["recorded verdict"] for row in rows}
    assert len(said) > 10
    assert {each[:2]: each[2] for each in said} == {each[:2]: found.get(each[:2]) for each in said}
    lost = {(row["notebook"], row["claim"]) for row in rows if row["recorded holm"] is False}
    open_ = {(row["notebook"], row["claim"]) for row in rows if row["recorded verdict"] not in DECIDED}
    assert {each[:2] for each in said if each[3]} == {each[:2] for each in said} & (lost - open_)


def test_numbers_of_a_finding_are_those_of_its_claims():
    rows = {(row["notebook"], row["claim"]): row for row in ledger.displayed(PROJECT / "notebooks")}
    shown = findings.findings(PAGES["findings.md"])[: findings.SHOWN]
    assert len(shown) == findings.SHOWN == 5
    for each in shown:
        told = " ".join(rows[claim[:2]][f"recorded {part}"] for claim in each.claims for part in ("run", "null"))
        known = [abs(float(number)) for number in re.findall(r"-?\d+(?:\.\d+)?", told)]
        numbers = re.findall(r"\d+(?:\.\d+)?", each.sentence.replace("95 % interval", ""))
        assert len(numbers) >= 3, f"{each.title}: a size and its interval"
        for number in numbers:
            half = 0.5 * 10 ** -len(number.partition(".")[2]) + 1e-9
            assert min(abs(float(number) - one) for one in known) <= half, f"{each.title}: {number} is not in {told}"


def test_what_the_front_pages_say_was_found_is_one_text():
    start, end = findings.MARKS
    opening = findings.opening(PAGES["findings.md"])
    assert README.index("## ") < README.index(start) < README.index("make reproduce")
    assert README[README.index(start) + len(start) : README.index(end)].strip() == opening
    (said,) = blocks(r"{include} \.\./README\.md", PAGES["index.md"])
    assert f':start-after: "{start}"' in said and f':end-before: "{end}"' in said


def test_a_file_of_the_evidence_store_is_read_without_torch(tmp_path):
    (code,) = blocks("python", RESULTS)
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=SECONDS
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("long {'error': {")
    code += "import sys\nassert 'torch' not in sys.modules"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=SECONDS)
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("code", [code for text in TEXTS for code in blocks("python", text)])
def test_code_of_readme_and_docs_runs(code, tmp_path, monkeypatch):
    monkeypatch.setenv("CAPSNB_RUNS", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # threads that wait for each other cost more than they bring here
    # a file of its own: the dataclass of a run is found again by its module
    (tmp_path / "example.py").write_text(code, encoding="utf-8")
    process = subprocess.run(
        [sys.executable, "example.py"], capture_output=True, text=True, cwd=tmp_path, timeout=SECONDS
    )
    assert process.returncode == 0, process.stderr


def test_installed_command_shows_its_help():
    process = subprocess.run([Path(sys.executable).with_name("capsnb"), "--help"], capture_output=True, text=True)
    assert process.returncode == 0
    assert "capsnb run" in process.stdout


def test_make_refuses_an_old_python_in_one_sentence(tmp_path):
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text((PROJECT / name).read_text(encoding="utf-8"), encoding="utf-8")
    process = subprocess.run(["make", "test", "PYTHON=false"], capture_output=True, text=True, cwd=tmp_path)
    assert process.returncode != 0
    assert process.stderr.startswith("capsnb needs Python 3.11 or newer, and 'false' is not")
    assert not (tmp_path / ".venv").exists()


def test_constraints_name_versions_alone_of_every_dependency():
    lines = (PROJECT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [re.fullmatch(r"([a-z0-9.-]+)==([0-9a-z.]+)(?: ; .+)?", line) for line in lines if not line.startswith("#")]
    assert all(pins), "no index, no local version"
    names = {pin[1] for pin in pins}
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    more = project["optional-dependencies"]
    assert "capsnb[notebooks]" in more["test"]
    wanted = {*project["dependencies"], *more["notebooks"], *more["test"]} - {"capsnb[notebooks]"}
    assert {re.match(r"[A-Za-z0-9-]+", each)[0].lower() for each in wanted} <= names
