"""Notebooks made to be kept: nothing that a page would load, equations without scripts, pictures made small."""

import re
from base64 import b64encode
from io import BytesIO

import nbformat
import numpy as np
import pytest
from helpers import links
from PIL import Image

from capsnb.evidence import offline


@pytest.mark.parametrize(
    "source", ["x_", r"\frac", "{", "", r"\begin{align} x", r"a < b \& c", r"\unknown{x}", r"\left( x"]
)
def test_an_equation_that_cannot_be_read_is_shown_as_it_stands(source):
    html = offline.mathml(source)
    assert html.startswith(("<math", "<code>"))
    assert "<script" not in html


def test_equations_of_outputs_lose_their_marks():
    assert offline.latex("$$x$$") == offline.latex("$x$") == offline.latex("x")
    assert 'display="block"' in offline.latex("x")
    assert "<mspace" in offline.mathml(r"\exp b")


@pytest.mark.parametrize(
    "html",
    [
        '<img src="https://a.example/b.png">',
        '<script src="//a.example/b.js"></script>',
        '<link rel="stylesheet" href="https://a.example/c.css">',
        "<style>@import 'https://a.example/d.css'; p {color: red}</style>",
        '<p style="background: url(https://a.example/e.png)">t</p>',
        '<svg><image xlink:href="https://a.example/f.png"></image></svg>',
        '<object data="http://a.example/g"></object>',
        '<iframe src="HTTPS://a.example/h"></iframe>',
        '<img srcset="https://a.example/i 2x" src="data:x">',
    ],
)
def test_outside_resources_are_left_out(html):
    kept = offline.offline(html)
    assert all(value.startswith("data:") for _, value in links(kept).loaded)
    assert "a.example" not in re.sub(r"\[not embedded: .*?\]", "", kept)


def test_links_and_embedded_images_are_kept():
    html = '<a href="https://a.example">a</a><img src="data:image/png;base64,xx">'
    assert offline.offline(html) == html.replace('xx">', 'xx"/>')


def png(array):
    stream = BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def shown(content):
    return np.asarray(Image.open(BytesIO(content)).convert("RGB")).astype(int)


def drawn():
    """White, a block of noise in a hundred thousand colours."""
    array = np.full((300, 400, 3), 255, np.uint8)
    array[50:250, 100:300] = np.random.default_rng(0).integers(0, 256, (200, 200, 3))
    return array


def test_a_reduced_picture_is_smaller_and_looks_the_same():
    before = png(drawn())
    after = offline.reduced(before)
    assert len(after) < len(before) / 2
    difference = np.abs(shown(after) - drawn())
    assert difference[:50].max() == 0  # the background is still white
    assert difference.mean() < 8  # of 255, on noise, the worst there is
    assert offline.reduced(before) == after


def test_what_is_reduced_stays_as_it_is():
    after = offline.reduced(png(drawn()))
    assert offline.reduced(after) == after


def test_what_is_see_through_stays_so():
    array = np.concatenate((drawn(), np.full((300, 400, 1), 255, np.uint8)), 2)
    array[array[..., :3].min(-1) == 255, 3] = 0
    after = np.asarray(Image.open(BytesIO(offline.reduced(png(array)))).convert("RGBA"))
    assert (after[:50, :, 3] == 0).all()
    assert (after[50:250, 100:300, 3] > 250).mean() > 0.99


def test_only_large_pictures_of_a_notebook_are_touched():
    large, small = (b64encode(png(part)).decode() for part in (drawn(), drawn()[:5, :5]))
    outputs = [
        nbformat.v4.new_output("display_data", {"image/png": each, "text/plain": "x"}) for each in (large, small)
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("draw()", outputs=outputs)])
    notebook.cells.append(nbformat.v4.new_markdown_cell("text"))
    first, second = offline.lighten(notebook).cells[0].outputs
    assert len(first.data["image/png"]) < len(large) / 2
    assert second.data["image/png"] == small
    nbformat.validate(notebook)
