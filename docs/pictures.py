"""The pictures of README and site: an explorer in both themes, and a finding, out of a committed notebook.

    python docs/pictures.py

Needs what the tests in a browser need: Chromium (or CHROMIUM=path), playwright and voila. Writes docs/pictures.
"""

import sys
from base64 import b64decode
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from playwright.sync_api import sync_playwright

from capsnb.evidence.offline import reduced

HERE = Path(__file__).parent
TARGET = HERE / "pictures"
sys.path.insert(0, str(HERE.parent / "tests"))

from test_browser import CHROMIUM, PATIENCE, one_explorer, serving  # noqa: E402

SHOWN = """from capsnb.explore import PerturbationExplorer
PerturbationExplorer("capsnet-small", index=3, values={2: 0.2})"""
WIDTH, HEIGHT = 1280, 560
FINDING = ("02_routing_entropy.ipynb", "c037")  # file, and id of the cell that draws it


def explorers() -> None:
    """An explorer as a page by Voila shows it, light and dark."""
    notebook = one_explorer()
    notebook.cells[0].source = SHOWN
    with (
        TemporaryDirectory() as folder,
        sync_playwright() as driver,
        serving("voila", Path(folder), notebook) as address,
    ):
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for theme, name in (("light", "explorer.png"), ("dark", "explorer-dark.png")):
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=1.5)
            page.goto(f"{address}?theme={theme}", timeout=PATIENCE)
            page.wait_for_selector(".capsnb figure img", timeout=PATIENCE)
            page.wait_for_timeout(1500)  # sliders are set after the pictures
            (TARGET / name).write_bytes(reduced(page.screenshot()))
        browser.close()


def finding() -> None:
    """The first figure of a cell."""
    file, wanted = FINDING
    cells = nbformat.read(HERE.parent / "notebooks" / file, as_version=4).cells
    outputs = next(cell.outputs for cell in cells if cell.get("id") == wanted)
    picture = next(each.data["image/png"] for each in outputs if "image/png" in each.get("data", {}))
    (TARGET / "finding.png").write_bytes(b64decode(picture))


if __name__ == "__main__":
    TARGET.mkdir(exist_ok=True)
    finding()
    explorers()
