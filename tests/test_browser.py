"""The explorers in a real browser, in JupyterLab and served by Voila: sliders, play, upload, another model.

Needs Chromium (Debian's package, or CHROMIUM=path) and the packages playwright and, for one half, voila; without them
the tests are skipped, and say what is missing.
"""

import base64
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import nbformat
import nbformat.v4 as v4
import numpy as np
import pytest
from nbconvert.preprocessors import TagRemovePreprocessor
from PIL import Image
from traitlets.config import Config

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "06_explorer.ipynb"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
MISSING = [name for name in ("playwright",) if importlib.util.find_spec(name) is None]
MISSING += [] if CHROMIUM else ["chromium (apt install chromium, or CHROMIUM=path)"]
VOILA = [] if importlib.util.find_spec("voila") else ["voila"]
PATIENCE = 180_000

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"no test in a browser: {', '.join(MISSING)} is missing")
SERVERS = [
    "lab",
    pytest.param("voila", marks=pytest.mark.skipif(bool(VOILA), reason="no page by Voila: voila is missing")),
]
# the page's commands within reach
LAB = ["--allow-root", "--ServerApp.token=", "--LabApp.expose_app_in_browser=True"]
CELL = """from capsnb.explore import PerturbationExplorer
explorer = PerturbationExplorer("capsnet-small")
explorer"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def one_explorer():
    spec = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    return v4.new_notebook(cells=[v4.new_code_cell(CELL)], metadata={"kernelspec": spec})


@contextmanager
def serving(kind, folder, notebook):
    """The address of a notebook, served on loopback while the block runs."""
    nbformat.write(notebook, folder / "page.ipynb")
    quiet = folder / "config" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    quiet.mkdir(parents=True)
    # no question whether to fetch news, which lies over the notebook
    (quiet / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')
    port = free_port()
    start, ready, page = {
        "lab": (["jupyterlab", *LAB], "api", "lab/tree/page.ipynb"),
        "voila": (["voila", "page.ipynb"], "voila/static/main.js", ""),
    }[kind]
    command = [sys.executable, "-m", *start, "--no-browser", f"--port={port}", "--ip=127.0.0.1"]
    environment = os.environ | {
        "JUPYTER_PLATFORM_DIRS": "1",
        "OMP_NUM_THREADS": "1",
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "PATH": f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}",
    }
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment)
        try:
            wait_for(f"http://127.0.0.1:{port}/{ready}", process, folder)
            yield f"http://127.0.0.1:{port}/{page}"
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_for(address, process, folder):
    end = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < end:
        assert process.poll() is None, (folder / "log").read_text()
        try:
            urllib.request.urlopen(address, timeout=5)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.3)
    raise TimeoutError((folder / "log").read_text())


class Page:
    """An explorer on a page, as a hand and an eye have it."""

    def __init__(self, page, kind, address):
        self.page, self.kind, self.address, self.theme = page, kind, address, "light"
        self.explorer = page.locator(".capsnb").first

    def pictures(self):
        return self.page.eval_on_selector_all(".capsnb figure img", "all => all.map(each => each.src)")

    def changes(self, before, place=1):
        """Wait until the picture at that place has other bytes."""
        self.page.wait_for_function(
            "([place, before]) => document.querySelectorAll('.capsnb figure img')[place]?.src != before",
            arg=[place, before[place]],
            timeout=PATIENCE,
        )
        return self.pictures()

    def turn(self, theme):
        """The page in its light or its dark theme."""
        if self.kind == "lab":
            command = "name => jupyterapp.commands.execute('apputils:change-theme', {theme: `JupyterLab ${name}`})"
            self.page.evaluate(command, theme.capitalize())
            bright = "true" if theme == "light" else "false"
            self.page.wait_for_selector(f"body[data-jp-theme-light={bright}]", state="attached")
        elif theme != self.theme:
            self.page.goto(f"{self.address}?theme={theme}", timeout=PATIENCE)
            self.page.wait_for_selector(".capsnb figure img", timeout=PATIENCE)
        self.theme = theme

    def upload(self, file, told):
        """Choose a file as one's own picture, and wait until the page says this of it."""
        with self.page.expect_file_chooser() as chooser:
            self.explorer.get_by_text("Your own picture").click()
        chooser.value.set_files(file)
        self.explorer.get_by_text(told).first.wait_for(timeout=PATIENCE)

    def handle(self, number):
        return self.explorer.locator(".capsnb-sliders .noUi-handle").nth(number)


def looking_at(address, driver):
    """Browser, page, and the list that errors of its console go into."""
    browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    heard = lambda said: errors.append(f"{said.text} {said.location['url']}") if said.type == "error" else None  # noqa: E731
    page.on("console", heard)
    page.goto(address, timeout=PATIENCE)
    return browser, page, errors


SIZES = ((1400, 900), (800, 900))
HIDDEN = """
(explorer, count) => [...explorer.querySelectorAll('figure img, figure svg')].slice(0, count).map(each => {
    const box = each.getBoundingClientRect(), [x, y] = [(box.left + box.right) / 2, (box.top + box.bottom) / 2]
    if (box.top < 0 || box.left < 0 || box.bottom > innerHeight || box.right > innerWidth) return "out of the window"
    const there = document.elementFromPoint(x, y)
    return each.contains(there) ? "in sight" : `behind ${there?.className || there?.tagName}`
})"""
CONTRAST = """
each => {
    const luminance = colour => {
        const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(part => part / 255)
            .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b
    }
    let behind = each, ground = ""
    while (/^$|, 0\\)$/.test(ground)) ground = getComputedStyle(behind = behind.parentElement).backgroundColor
    const [low, high] = [ground, getComputedStyle(each).color].map(luminance).sort((a, b) => a - b)
    return [(high + 0.05) / (low + 0.05), luminance(ground)]
}"""


def while_dragged(page, handle, check):
    """Press a slider's handle where the page scrolls to it, move it towards its middle, call `check`, let it go."""
    handle.evaluate("each => each.scrollIntoView({block: 'center'})")
    page.wait_for_timeout(300)
    box = handle.bounding_box()
    track = handle.locator("xpath=ancestor::*[contains(@class, 'noUi-target')]").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    inwards = 1 if x < track["x"] + track["width"] / 2 else -1
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 12 * inwards, y, steps=4)
    try:
        check()
    finally:
        page.mouse.up()


def of_its_own(errors):
    # pages by Voila ask a server elsewhere for their icons' style, which a machine without network cannot have
    elsewhere = r"net::ERR_(NAME_NOT_RESOLVED|INTERNET_DISCONNECTED|\w*REFUSED)"
    # nor is it ours that a page by Voila, when it is left, asks for its kernel's end in a way that Voila forbids
    elsewhere += r"|403 \(Forbidden\) \S*/voila/api/shutdown/"
    return [each for each in errors if not re.search(elsewhere, each)]


@pytest.fixture(scope="module")
def driver():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="module", params=SERVERS)
def opened(request, driver, tmp_path_factory):
    """A page with an explorer, and the errors of its console."""
    folder = tmp_path_factory.mktemp(request.param)
    with serving(request.param, folder, one_explorer()) as address:
        browser, page, errors = looking_at(address, driver)
        if request.param == "lab":
            # what is run before the kernel is ready is forgotten
            page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=PATIENCE)
            page.locator(".jp-CodeCell .cm-content").first.click()
            page.keyboard.press("Shift+Enter")
        page.wait_for_selector(".capsnb figure img", timeout=PATIENCE)
        if request.param == "lab":
            page.keyboard.press("Control+b")  # the list of files, which leaves little room in a narrow window
        yield Page(page, request.param, address), errors, folder
        browser.close()


def test_a_slider_moves_by_keys_and_by_dragging(opened):
    page, _, _ = opened
    before = page.pictures()
    assert all(each.startswith("data:image/png;base64,") for each in before)
    page.handle(2).focus()
    for _ in range(5):
        page.page.keyboard.press("PageUp")
    after = page.changes(before)
    assert after[0] == before[0]  # the original stays
    box = page.handle(4).bounding_box()
    page.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.page.mouse.down()
    page.page.mouse.move(box["x"] + 70, box["y"] + 5, steps=30)
    page.page.mouse.up()
    page.changes(after)


def test_play_sweeps_and_stops(opened):
    page, _, _ = opened
    first = page.pictures()
    buttons = page.explorer.locator(".widget-play button")
    buttons.nth(0).click()
    second = page.changes(first)
    page.changes(second)
    buttons.nth(1).click()


def test_a_picture_is_uploaded_and_a_bad_one_told(opened):
    page, _, folder = opened
    ink = np.full((60, 60), 255, np.uint8)
    ink[10:50, 28:34] = 0
    Image.fromarray(ink).save(folder / "one.png")
    (folder / "words.png").write_text("not a picture")
    before = page.pictures()
    page.upload(folder / "one.png", "60 x 60 pixels, inverted")
    page.changes(before, place=0)
    page.upload(folder / "words.png", "words.png is not a picture")


def upright_one(folder):
    """A one in dark ink with its foot, as a camera stores it that was turned."""
    paper = np.full((90, 60, 3), 225, np.uint8)
    paper[15:75, 27:35] = paper[68:75, 12:50] = 40
    exif = Image.Exif()
    exif[0x0112] = 6
    file = folder / "phone.jpg"
    Image.fromarray(paper).transpose(Image.Transpose.ROTATE_90).save(file, quality=95, exif=exif)
    return file


def ink_on_nothing(folder):
    ink = np.zeros((90, 60, 4), np.uint8)
    ink[15:75, 27:35, 3] = ink[68:75, 12:50, 3] = 255
    Image.fromarray(ink).save(folder / "ink.png")
    return folder / "ink.png"


def sixteen_bits(folder):
    light = np.full((90, 60), 2_000, np.uint16)
    light[15:75, 27:35] = light[68:75, 12:50] = 60_000
    Image.fromarray(light).save(folder / "deep.png")
    return folder / "deep.png"


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_pictures_of_three_kinds_are_shown_as_they_are_meant(opened, theme):
    page, _, folder = opened
    page.turn(theme)
    (folder / "broken.png").write_bytes(ink_on_nothing(folder).read_bytes()[:60])
    said = [page.explorer.locator(".capsnb-sliders").inner_text()]
    for made, told in ((upright_one, "inverted"), (ink_on_nothing, "inverted"), (sixteen_bits, "60 x 90")):
        file = made(folder)
        before = page.pictures()
        page.upload(file, f"{file.name}: 60 x 90 pixels")
        page.explorer.get_by_text(told).first.wait_for(timeout=PATIENCE)
        shown = decoded(page.changes(before, place=0)[0])
        # sliders that nobody moved show the pose of the picture that is there
        moved = "before => document.querySelector('.capsnb-sliders').innerText != before"
        page.page.wait_for_function(moved, arg=said[-1], timeout=PATIENCE)
        said.append(page.explorer.locator(".capsnb-sliders").inner_text())
        page.page.screenshot(path=folder / f"{file.stem}-{theme}.png")
        # light on dark, the stroke upright and its foot below: 28 pixels of a square of 90
        assert np.median(shown) < 60 and shown[14, 14] > 190
        assert (shown[21:24, 10:19].max(0) > 120).all() and shown[4:7, 10:19].max() > 120
        assert shown[7:20, :12].max() < 80 and shown[7:20, 18:].max() < 80
    assert len(set(said[1:])) == 3
    page.upload(folder / "broken.png", "broken.png is damaged")
    assert page.explorer.locator(".capsnb-error:visible").count() == 1
    assert decoded(page.pictures()[0]).shape == (28, 28) and np.array_equal(decoded(page.pictures()[0]), shown)


def decoded(address):
    """The picture of a data address in grey, 28 pixels a side whatever its size on the page."""
    content = base64.b64decode(address.partition(",")[2])
    return np.asarray(Image.open(BytesIO(content)).convert("L").resize((28, 28), Image.Resampling.NEAREST))


def test_another_model_is_chosen(opened):
    page, _, _ = opened
    select = page.explorer.locator(".capsnb-model select")
    names = select.locator("option").all_inner_texts()
    other = next(name for name in names if name != "capsnet-small")
    before = page.pictures()
    select.select_option(label=other)
    page.changes(before)
    select.select_option(label="capsnet-small")
    page.page.wait_for_timeout(500)


def test_it_fits_wide_and_narrow_windows(opened):
    page, _, folder = opened
    for width in (1280, 800):
        page.page.set_viewport_size({"width": width, "height": 1000})
        page.page.wait_for_timeout(500)
        over = page.explorer.evaluate("each => each.scrollWidth - each.clientWidth")
        assert over <= 1, f"{over} pixels stand over at a width of {width}"
        page.explorer.screenshot(path=folder / f"{width}.png")
        assert len(np.unique(np.array(Image.open(folder / f"{width}.png").convert("L")))) > 20


def test_the_console_has_no_error(opened):
    _, errors, _ = opened
    assert not of_its_own(errors)


# by theme, as the tests before leave it: for another one Voila loads the page anew, with another kernel
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("theme", ["dark", "light"])
def test_pictures_are_in_sight_while_the_last_slider_is_dragged(opened, size, theme):
    page, _, folder = opened
    page.turn(theme)
    page.page.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
    page.page.wait_for_timeout(500)
    before = page.pictures()

    def check():
        page.changes(before)
        page.page.screenshot(path=folder / f"{size[0]}-{theme}.png")
        assert page.explorer.evaluate(HIDDEN, 4) == ["in sight"] * 4

    while_dragged(page.page, page.explorer.locator(".noUi-handle").last, check)
    contrast, ground = page.explorer.locator("figcaption").first.evaluate(CONTRAST)
    assert contrast > 4.5
    assert (ground > 0.5) == (theme == "light")


@pytest.mark.skipif(bool(VOILA), reason="no page by Voila: voila is missing")
def test_notebook_06_is_a_page_of_explorers_that_answer(driver, tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    options = Config(TagRemovePreprocessor={"enabled": True, "remove_cell_tags": {"static"}})
    notebook, _ = TagRemovePreprocessor(config=options).preprocess(notebook, {})
    with serving("voila", tmp_path, notebook) as address:
        browser, page, errors = looking_at(address, driver)
        page.wait_for_function("document.querySelectorAll('.capsnb-view').length >= 6", timeout=PATIENCE)
        explorers = page.locator(".jp-OutputArea-output > .capsnb")
        assert explorers.count() == 6
        for number in range(6):
            view = explorers.nth(number).locator(".capsnb-view").first
            view.locator("img, svg").first.wait_for(timeout=PATIENCE)
            before = view.inner_html()
            explorers.nth(number).locator(".noUi-handle").first.press("PageUp")
            explorers.nth(number).locator(".noUi-handle").first.press("ArrowLeft")
            page.wait_for_function(
                "([place, before]) => document.querySelectorAll('.jp-OutputArea-output > .capsnb')[place]"
                ".querySelector('.capsnb-view').innerHTML != before",
                arg=[number, before],
                timeout=PATIENCE,
            )
        for width, height in SIZES:
            page.set_viewport_size({"width": width, "height": height})
            page.wait_for_timeout(500)
            for number in range(6):
                found, explorer = [], explorers.nth(number)
                last = explorer.locator(".capsnb-sliders .noUi-handle").last
                while_dragged(page, last, lambda: found.extend(explorer.evaluate(HIDDEN, 1)))  # noqa: B023 - at once
                assert found == ["in sight"], f"explorer {number} at {width} x {height}"
        assert not of_its_own(errors)
        browser.close()
