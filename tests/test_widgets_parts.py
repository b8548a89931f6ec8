"""What the explorers are made of: events, pictures, charts, uploads, and the choice of picture and model."""

import asyncio
import datetime
import struct
import time
import zlib
from io import BytesIO
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

import widgets as benchmark
from capsnb.data import DataSpec, ImageSet, Split, single
from capsnb.explore import PerturbationExplorer, ViewpointExplorer, charts, pictures
from capsnb.explore.chooser import OWN, SHOWN, PictureChooser
from capsnb.explore.events import Latest
from capsnb.explore.routing import grouped
from capsnb.explore.subjects import Field, field, spread_over, subject
from capsnb.nn.models import CapsNetConfig, StridedStem
from capsnb.training import checkpoints, runs
from capsnb.training.recipe import Recipe
from capsnb.training.spec import Spec

STEM = StridedStem(channels=4, kernel=5, types=2, dim=4)
SMALL = CapsNetConfig(size=16, classes=3, dim=4, stem=STEM, decoder_widths=(8,))


def build(config=SMALL):
    torch.manual_seed(0)
    return config.build().eval()


def images_of(count, shape=(1, 16, 16), classes=("a", "b", "c")):
    images = torch.zeros(count, *shape, dtype=torch.uint8)
    images[..., 4:-4, 4:-4] = (torch.arange(count) + 20).to(torch.uint8)[:, None, None, None]
    return Split(images, torch.arange(count) % len(classes))


def image_set(shape=(1, 16, 16), count=20, classes=("a", "b", "c")):
    return ImageSet("toy", "made", classes, *(images_of(n, shape, classes) for n in (6, 9, count)))


# events


def test_without_a_loop_a_request_is_answered_at_once():
    seen = []
    latest = Latest(lambda: seen.append(latest.requests))
    latest.request()
    latest.request()
    assert seen == [1, 2]


def test_requests_that_come_while_one_is_drawn_are_answered_together_by_the_newest():
    state, seen = {"value": 0}, []

    def draw():
        seen.append(state["value"])
        time.sleep(0.02)

    async def drag():
        latest = Latest(draw)
        for value in range(200):
            state["value"] = value
            latest.request()
            if value % 10 == 0:
                await asyncio.sleep(0.002)
        await asyncio.sleep(0.1)
        return latest

    latest = asyncio.run(drag())
    assert latest.requests == 200
    assert seen[-1] == 199  # the last state is always drawn
    assert len(seen) == latest.drawn <= 20  # and what has passed is not
    assert seen == sorted(seen)


def test_settling_draws_what_waits_and_only_once():
    seen = []

    async def one():
        latest = Latest(lambda: seen.append(1))
        latest.request()
        assert not seen
        latest.settle()
        latest.settle()
        await asyncio.sleep(0.02)

    asyncio.run(one())
    assert seen == [1]


def test_changes_made_together_are_drawn_once():
    seen = []
    latest = Latest(lambda: seen.append(1))
    with latest.together():
        latest.request()
        latest.request()
        assert not seen
    assert seen == [1]


# pictures and charts


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (5, 7, 4)])
def test_a_png_holds_the_pixels(shape):
    pixels = np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)
    content = pictures.png(pixels)
    assert content.startswith(b"\x89PNG")
    assert np.array_equal(np.array(Image.open(BytesIO(content))), pixels)


def test_images_become_bytes():
    floats = torch.tensor([[[0.0, 0.5], [1.0, 2.0]]])
    assert pictures.as_bytes(floats).tolist() == [[0, 128], [255, 255]]
    assert pictures.as_bytes(torch.zeros(3, 4, 5, dtype=torch.uint8)).shape == (4, 5, 3)
    with pytest.raises(ValueError, match=r"not \(2, 4, 5\)"):
        pictures.as_bytes(torch.zeros(2, 4, 5))


def test_a_difference_is_clear_where_there_is_none():
    shown = pictures.signed(torch.tensor([[[0.0, 1.0, -0.5]]]))
    assert shown.shape == (1, 3, 4)
    assert shown[0, :, 3].tolist() == [0, 255, 127]
    assert shown[0, 1, :3].tolist() == list(pictures.MORE)
    assert shown[0, 2, :3].tolist() == list(pictures.LESS)


def test_a_heat_map_is_white_at_its_centre():
    shown = pictures.heat(np.array([[0.0, 0.1, 1.0]]), 0.1, 1.0).astype(int)
    assert (shown[0, 1] > 240).all()
    assert shown[0, 0, 2] > shown[0, 0, 0]  # blue below
    assert shown[0, 2, 0] > shown[0, 2, 2]  # orange above


def test_an_overlay_leaves_what_has_no_weight():
    shown = pictures.overlay(torch.full((1, 1, 2), 100, dtype=torch.uint8), np.array([[0.0, 1.0]]))
    assert shown[0, 0].tolist() == [60, 60, 60]
    assert abs(shown[0, 1].astype(int) - (0.85 * pictures.MORE + 9)).max() <= 1


CHARTS = {
    "bars": lambda: charts.bars(["<a>", "b"], [0.2, 0.9], '"bars" & more', marks=[0.1, 1.2], chosen=0),
    "columns": lambda: charts.columns([0.2, 0.9, 0.0], "columns", marks=[0.1, 0.2, 0.3], largest=1.0),
    "curve": lambda: charts.curve([2.3, 1.1, 0.2], "curve", name="nats", limit=2.3),
    "tree": lambda: charts.tree([[0.1, 0.9], [1.0], [0.0] * 90], [[[0.5], [1]], [[0.1] * 90]], "tree", names="abc"),
}


@pytest.mark.parametrize("kind", CHARTS)
def test_a_chart_is_sound_svg_that_says_what_it_is(kind):
    caption, root = ElementTree.fromstring(CHARTS[kind]())
    assert root.get("role") == "img"
    assert root.get("aria-label") == caption.text
    assert kind in caption.text
    assert root.get("fill") == "currentColor"
    assert "nan" not in CHARTS[kind]()


def test_a_bar_is_as_long_as_its_value():
    root = ElementTree.fromstring(CHARTS["bars"]())
    assert [float(each.get("width")) for each in root.iter("rect")] == [30.0, 135.0]
    assert [each.text for each in root.iter("text")] == ["<a>", "0.20", "b", "0.90"]


def test_a_tree_draws_its_largest_edges():
    couplings = np.random.RandomState(0).rand(60, 20)
    root = ElementTree.fromstring(charts.tree([[1] * 60, [1] * 20], [couplings], "tree", names=["a", "b"]))
    edges = [each for each in root.iter("path") if each.get("stroke") == charts.BLUE]
    assert sum(each.get("d").count("M") for each in edges) == charts.MOST_EDGES


# uploads


def file_of(picture, kind="PNG"):
    stream = BytesIO()
    picture.save(stream, kind)
    return stream.getvalue()


def bomb():
    """A PNG that says it has 30,000 x 30,000 pixels."""
    chunks = {b"IHDR": struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0), b"IDAT": zlib.compress(b"0" * 100)}
    parts = [struct.pack(">I", len(each)) + name + each for name, each in chunks.items()]
    return b"\x89PNG\r\n\x1a\n" + b"".join(part + struct.pack(">I", zlib.crc32(part[4:])) for part in parts)


BAD = {
    "no picture": (b"These are words.", "is not a picture that can be read"),
    "empty": (b"", "is empty"),
    "large file": (b"x" * (single.MOST_BYTES + 1), "has 10 MB; pictures of up to 10 MB are read"),
    "many pixels": (bomb(), "million"),
    "cut off": (file_of(Image.effect_noise((80, 80), 90))[:700], "is damaged"),
    "one pixel": (file_of(Image.new("L", (1, 1))), "has 1 x 1 pixels, too few"),
    "a broken header": (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "is not a picture|is damaged"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_upload_is_answered_by_one_sentence(kind):
    content, sentence = BAD[kind]
    explorer = ViewpointExplorer(build(), data=image_set())
    before = explorer.image.clone()
    when = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    file = {"name": "mine.png", "type": "image/png", "size": len(content), "content": memoryview(content)}
    explorer.chooser.upload.value = (file | {"last_modified": when},)
    with pytest.raises(ValueError, match=sentence):
        single.read_picture(content, "mine.png")
    assert explorer.chooser.note.text.startswith("mine.png")
    assert "\n" not in explorer.chooser.note.text
    assert 'role="alert"' in explorer.chooser.note.value
    assert torch.equal(explorer.image, before)


GOOD = {
    "grey": lambda: Image.new("L", (40, 40), 128),
    "colour": lambda: Image.new("RGB", (30, 40), (10, 200, 30)),
    "palette": lambda: Image.new("RGB", (30, 40), (10, 200, 30)).quantize(4),
    "one bit": lambda: Image.new("1", (20, 20), 1),
    "alpha": lambda: Image.new("RGBA", (64, 20), (255, 0, 0, 100)),
    "grey and alpha": lambda: Image.new("LA", (20, 20), (50, 0)),
    "sixteen bits": lambda: Image.fromarray(np.full((20, 20), 40_000, np.uint16)),
    "cmyk": lambda: Image.new("CMYK", (20, 20), (0, 100, 100, 0)),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", GOOD)
def test_every_kind_of_picture_becomes_one_of_the_set(kind, channels):
    content = file_of(GOOD[kind](), "TIFF" if kind in ("cmyk", "sixteen bits") else "PNG")
    explorer = PerturbationExplorer(build(CapsNetConfig(**(vars(SMALL) | {"channels": channels}))),
                                    data=image_set((channels, 16, 16)))  # fmt: skip
    explorer.chooser.take(content, "mine")
    assert explorer.index == OWN
    assert explorer.image.shape == (channels, 16, 16)
    assert explorer.image.dtype == torch.uint8
    assert "resized to 16 x 16" in explorer.chooser.note.text
    assert explorer.message.text == ""
    assert "your own" in explorer.original.value
    assert "index" not in explorer.code()


def test_of_an_uploaded_film_the_first_frame_is_taken_and_said():
    frames, file = [Image.new("L", (20, 20), n) for n in (30, 60)], BytesIO()
    frames[0].save(file, "TIFF", save_all=True, append_images=frames[1:])
    explorer = PerturbationExplorer(build(), data=image_set())
    explorer.chooser.take(file.getvalue(), "film.tif")
    assert explorer.image.unique().tolist() == [30]
    assert explorer.chooser.note.text == (
        "film.tif: 20 x 20 pixels, resized to 16 x 16. "
        "film.tif has several pages or frames, of which the first is taken."
    )


def test_dark_ink_on_paper_becomes_light_on_dark():
    page = np.full((32, 16), 240, np.uint8)
    page[8:24, 6:10] = 20
    image, told = single.fit(single.read_picture(file_of(Image.fromarray(page))), (1, 16, 16), dark=True)
    assert "inverted" in told
    assert "padded to a square" in told
    assert image[0, 0, 0] == image[0, 0, 15] == 15  # paper, and what it was padded with
    assert image[0, 8, 8] > 200
    kept, told = single.fit(single.read_picture(file_of(Image.fromarray(page))), (1, 16, 16), dark=False)
    assert "inverted" not in told
    assert kept[0, 0, 0] == 240


def test_a_picture_keeps_its_proportions_in_a_set_that_is_not_square():
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    same, told = single.fit(pixels, (3, 12, 16))
    assert np.array_equal(same.permute(1, 2, 0), pixels) and told == "16 x 12 pixels."
    page = np.full((16, 16, 3), 240, np.uint8)
    page[4:12, 4:12] = 20
    image, told = single.fit(page, (1, 12, 16))
    assert told == "16 x 16 pixels, padded to the proportions 16 : 12, resized to 16 x 12."
    assert (image[0, 4:8, 6:10] < 30).all() and (image[0, :, :2] == 240).all() and (image[0, :, -2:] == 240).all()
    strip, told = single.fit(np.full((2, 200_000, 3), 90, np.uint8), (3, 12, 16))  # a square of it would take 120 GB
    assert told == "200000 x 2 pixels, padded to the proportions 16 : 12, resized to 16 x 12." and (strip == 90).all()


def test_strokes_on_nothing_are_seen_whatever_their_colour():
    for ink in (0, 255):
        pixels = np.zeros((16, 16, 4), np.uint8)
        pixels[4:12, 6:10] = (ink, ink, ink, 255)
        picture = single.read_picture(file_of(Image.fromarray(pixels)))
        image, _ = single.fit(picture, (1, 16, 16), dark=True)
        assert image[0, 0, 0] == 0
        assert image[0, 8, 8] == 255


def test_sixteen_bits_are_scaled_not_cut():
    content = file_of(Image.fromarray(np.full((20, 20), 32_768, np.uint16)), "TIFF")
    assert single.read_picture(content)[0, 0, 0] in (127, 128)


# choosing


def test_thumbnails_pages_classes_and_chance():
    chooser = PictureChooser(image_set())
    chooser.thumbnails[3].click()
    assert (chooser.index, chooser.title) == (3, "class a")
    assert "capsnb-chosen" in chooser.thumbnails[3]._dom_classes
    chooser.on.click()
    chooser.thumbnails[0].click()
    assert chooser.index == SHOWN
    chooser.on.click()
    assert [each.disabled for each in chooser.thumbnails] == [False] * 4 + [True] * 4
    chooser.thumbnails[7].click()
    assert chooser.index == SHOWN
    chooser.on.click()
    chooser.back.click()
    assert chooser.thumbnails[0].description == "picture 16, class b"
    chooser.classes.value = 2
    chooser.thumbnails[1].click()
    assert (chooser.only, chooser.index) == (2, 5)
    seen = set()
    for _ in range(60):
        chooser.random.click()
        seen.add(chooser.index)
    assert seen == {n for n in range(20) if n % 3 == 2}


def test_a_class_without_images_is_told():
    chooser = PictureChooser(image_set(count=2))
    chooser.only = 2
    assert chooser.note.text == "no test image is of class c; all are shown."


def test_every_control_has_a_name():
    explorer = PerturbationExplorer(build(), data=image_set())
    controls = [*explorer.chooser.children[1].children, *explorer.chooser.children[2].children]
    controls += [*explorer.tools.children[:3], *explorer.sliders, *explorer.controls.children[0].children]
    assert len(controls) > 20
    assert all(each.description or each.tooltip for each in [*controls, explorer.picker] if not each.disabled)


# models


def test_a_subject_is_named_as_the_reader_would():
    assert subject("capsnet-small").code == "'capsnet-small'"
    assert subject(build(), image_set()).name == "CapsNet"
    run = checkpoints.load("capsnet-small")
    assert subject(run).model is run.model
    with pytest.raises(
        ValueError, match=r"'nothing' is neither a checkpoint \(capsnet-small.*\) nor the name or folder"
    ):
        subject("nothing")
    with pytest.raises(ValueError, match="takes a checkpoint's or a run's name, a Run or a model, not int"):
        subject(3)
    with pytest.raises(
        ValueError, match=r"CapsNet takes images \(1, 16, 16\), those of mnist-sample are \(1, 28, 28\)"
    ):
        subject(build())


def test_a_finished_run_can_be_chosen_in_the_widget(tmp_path, monkeypatch):
    monkeypatch.setenv("CAPSNB_RUNS", str(tmp_path))
    model = CapsNetConfig(size=12, dim=4, stem=StridedStem(channels=4, kernel=3, types=2, dim=4), decoder_widths=(8,))
    data = DataSpec(crop=24, resize=12, train=64, validation=20, test=20)
    run = runs.get(Spec(model=model, data=data, recipe=Recipe(epochs=1, batch=32)), device="cpu", progress=False)
    explorer = PerturbationExplorer("capsnet-small", index=500)
    assert run.folder.name in [value for _, value in explorer.picker.options]
    explorer.picker.value = run.folder.name
    assert explorer.subject.name == run.folder.name
    assert explorer.image.shape == (1, 12, 12)
    assert (explorer.index, len(explorer.sliders), explorer.message.text) == (0, 4, "")
    # a run that is gone is told, and the one before stays
    (run.folder / "model.pt").rename(run.folder / "gone.pt")
    explorer.picker.value = "capsnet-small"
    explorer.model = run.folder.name
    assert "is neither a checkpoint" in explorer.message.text
    assert explorer.subject.name == explorer.picker.value == "capsnet-small"


def test_checkpoints_without_a_decoder_are_not_offered_where_pictures_are_made():
    pictures_of, routing = (kind("capsnet-small") for kind in (PerturbationExplorer, ViewpointExplorer))
    offered, all_of_them = ({value for _, value in each.picker.options} for each in (pictures_of, routing))
    without = {name for name, spec in checkpoints.CHECKPOINTS.items() if spec.model.decoder == "none"}
    assert without and without <= all_of_them and not without & offered


def test_a_model_of_the_readers_own_stays_in_the_list():
    own = build(CapsNetConfig(stem=StridedStem(channels=4, types=1, dim=4), decoder_widths=(8,)))
    explorer = PerturbationExplorer(own)
    assert explorer.picker.label == "CapsNet (given)"
    explorer.picker.value = "capsnet-small"
    assert explorer.subject.name == "capsnet-small"
    assert explorer.picker.options[0][0] == "CapsNet (given)"
    explorer.picker.value = explorer.picker.options[0][1]
    assert explorer.subject.model is own


# geometry


def test_primary_capsules_sit_where_their_convolutions_look():
    model = build(CapsNetConfig(stem=StridedStem(channels=4, types=1, dim=4), decoder="none"))
    where = field(model)
    assert where == Field(8.0, 2, 17)
    # by gradient: the pixels that one position depends on
    image = torch.rand(1, 1, 28, 28, requires_grad=True)
    poses = model.primary(model.conv1(image)).view(6, 6, 4)
    poses[2, 3].sum().backward()
    rows, columns = (image.grad[0, 0].abs().sum(axis).nonzero().flatten() for axis in (1, 0))
    assert (int(rows[0]), int(rows[-1])) == (8 + 2 * 2 - 8, 8 + 2 * 2 + 8)
    assert (int(columns[0]), int(columns[-1])) == (8 + 2 * 3 - 8, 8 + 2 * 3 + 8)


def test_votes_are_laid_in_even_blocks_around_where_they_look():
    values = torch.arange(1.0, 5.0).view(2, 2)
    canvas = spread_over(values, Field(3.0, 2, 5), (8, 8))
    assert canvas[2:4, 2:4].eq(1).all()
    assert canvas[2:4, 4:6].eq(2).all()
    assert canvas[4:6, 4:6].eq(4).all()
    assert canvas.gt(0).sum() == 16


def test_children_are_grouped_by_their_winner():
    coupling = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.4, 0.6], [0.9, 0.1]])
    assert grouped(coupling).tolist() == [3, 1, 0, 2]


# the benchmark


def test_the_benchmark_answers_every_kind_of_event():
    explorer = ViewpointExplorer(build(), data=image_set())
    before = explorer.latest.drawn
    times = benchmark.answered(explorer, 20)
    assert len(times) == 20
    assert min(times) > 0
    assert explorer.latest.drawn == before + 25
    assert explorer.index != 0
    assert benchmark.percentile([float(n) for n in range(1, 101)]) == 95.0
    found = benchmark.dragged(explorer, rate=1000.0, seconds=0.2)
    assert found["events"] == 200
    assert 1 <= found["pictures"] < 200
    assert "above 50" in benchmark.line(
        {"explorer": "a", "model": "b", "opened ms": 1.0, "median ms": 2.0, "p95 ms": 51.0} | found
    )
