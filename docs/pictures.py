"""The pictures of README and site: the scorecard, a finding out of a committed notebook, an explorer in both themes.

    python docs/pictures.py [scorecard | finding | explorers]...

The scorecard is drawn from the evidence store. The explorer needs what the tests in a browser need: Chromium (or
CHROMIUM=path), playwright and voila. Writes docs/pictures.
"""

import sys
from base64 import b64decode
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat

from capsnb import plot
from capsnb.evidence import scorecard as cards
from capsnb.evidence.offline import reduced

HERE = Path(__file__).parent
TARGET = HERE / "pictures"
PROJECT = HERE.parent

SHOWN = """from capsnb.explore import PerturbationExplorer
PerturbationExplorer("capsnet-small", index=3, values={2: 0.2})"""
WIDTH, HEIGHT = 1280, 560
# grid -> its case -> what a reader of the picture alone understands: one network of each history, one of each routing
ROWS = {
    "resurrection": {
        "never decayed": "no weight decay",
        "decay on, moments kept": "dead of decay",
        "decay off, moments reset": "revived",
    },
    "competition": {
        "agreement": "agreement",
        "attention over parents": "attention, parents",
        "attention over children": "attention, children",
        "uniform": "even couplings",
    },
}
FINDING = ("02_routing_entropy.ipynb", "c037")  # file, and id of the cell that draws it


def scorecard() -> None:
    """Deep networks in all measures that they have, measures down: as wide as a phone."""
    page = cards.of_recorded(PROJECT / "notebooks" / "sweeps" / f"{name}.toml" for name in ROWS)
    card = {shown: page.card[case] for rows in ROWS.values() for case, shown in rows.items()}
    routed = tuple(ROWS["competition"].values())
    plot.style()
    with BytesIO() as drawn:
        figure = plot.scorecard(cards.shown(card), page.groups, controls=routed, turned=True)
        figure.savefig(drawn, format="png", dpi=150, facecolor="none", metadata={"Software": None})
        (TARGET / "scorecard.png").write_bytes(reduced(drawn.getvalue()))


def explorers() -> None:
    """An explorer as a page by Voila shows it, light and dark."""
    sys.path.insert(0, str(PROJECT / "tests"))
    from playwright.sync_api import sync_playwright
    from test_browser import CHROMIUM, PATIENCE, one_explorer, serving

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
    cells = nbformat.read(PROJECT / "notebooks" / file, as_version=4).cells
    outputs = next(cell.outputs for cell in cells if cell.get("id") == wanted)
    picture = next(each.data["image/png"] for each in outputs if "image/png" in each.get("data", {}))
    (TARGET / "finding.png").write_bytes(b64decode(picture))


DRAWN = {each.__name__: each for each in (scorecard, finding, explorers)}

if __name__ == "__main__":
    TARGET.mkdir(exist_ok=True)
    for each in sys.argv[1:] or DRAWN:
        DRAWN[each]()
