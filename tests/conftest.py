"""Stand-in notebooks that need no torch, and an environment that no setting of the machine reaches."""

import base64
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import nbformat
import nbformat.v4 as v4
import pytest
from matplotlib import pyplot as plt

PROJECT = Path(__file__).parents[1]
PARAMETERS = ("profile = None\nseed = 0\nseeds = None\ndata = None", "parameters")
PIXEL = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010804000000b51c0c02"
        "0000000b4944415478da6364600000000600023081d02f0000000049454e44ae426082"
    )
).decode()

TEXT = r"""# 90 A stand-in

Inline $\frac{a_{ij}}{2}$ and

$$c_{ij} = \frac{\exp b_{ij}}{\sum_k \exp b_{ik}}$$

## Shared heading

see [above](#Shared-heading)
"""
CLAIMS = """from capsnb.evidence import Claim, Exact, table
claim = Claim("size", "It has <8> million.", Exact("capsnet", 8), source="Table 9")
table("90", [claim], {"size": {"capsnet": [8]}}, root=".")"""

Cell = str | tuple[str, str]  # markdown, or (code, tag)


def write_notebook(path: Path, cells: Sequence[Cell]) -> Path:
    """A notebook that was never executed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = []
    for number, cell in enumerate(cells):
        made.append(v4.new_markdown_cell(cell) if isinstance(cell, str) else v4.new_code_cell(cell[0]))
        made[-1].id = f"c{number}"
        if not isinstance(cell, str) and cell[1]:
            made[-1].metadata["tags"] = [cell[1]]
    spec = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    nbformat.write(v4.new_notebook(cells=made, metadata={"kernelspec": spec}), path)
    return path


@pytest.fixture(scope="session", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Runs of the tests go to a folder of their own, unless `make test` has named one."""
    for name in ("CAPSNB_PROFILE", "CAPSNB_DATA", "CAPSNB_EVIDENCE"):
        os.environ.pop(name, None)
    os.environ.setdefault("CAPSNB_RUNS", str(tmp_path_factory.mktemp("runs")))


@pytest.fixture
def figures_closed() -> Iterator[None]:
    """No figure of a test is left for the next one."""
    yield
    plt.close("all")


@pytest.fixture
def double() -> Iterator[None]:
    """Numbers so exact that neither rounding nor another order of a sum moves an image or a key over a threshold."""
    import torch

    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def project() -> Path:
    return PROJECT


@pytest.fixture
def make_notebook() -> Callable[[Path, Sequence[Cell]], Path]:
    return write_notebook


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two notebooks, of which the second fails in its second code cell."""
    folder = tmp_path_factory.mktemp("notebooks")
    picture = f"from IPython.display import display\ndisplay({{'image/png': '{PIXEL}'}}, raw=True)"
    outside = "from IPython.display import HTML\nHTML('<script src=\"https://cdn.example/x.js\"></script><b>kept</b>')"
    good = [TEXT, PARAMETERS, ("# a check\nprint(1 + 1, profile)", ""), (picture, ""), (CLAIMS, ""), (outside, "")]
    write_notebook(folder / "90_stand_in.ipynb", good)
    fails = ["# A failure\n\n## Shared heading", PARAMETERS, ("def f(x):\n    return 1 / x\n\nf(0)", ""), ("2", "")]
    write_notebook(folder / "91_fails.ipynb", fails)
    return folder


@pytest.fixture(scope="session")
def executed(
    stand_ins: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The stand-ins executed by a true `capsnb run`, both at a time: the folder, and the finished process."""
    out = tmp_path_factory.mktemp("executed")
    command = [sys.executable, "-m", "capsnb.cli", "run", "--profile", "smoke", "--seed", "3", "--jobs", "2"]
    command += ["--notebooks", str(stand_ins), "--out", str(out)]
    return out, subprocess.run(command, capture_output=True, text=True, timeout=300)
