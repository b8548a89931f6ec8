"""Pictures of notebooks: smaller, and the same to the eye."""

from base64 import b64encode
from io import BytesIO

import nbformat
import numpy as np
from PIL import Image

from capsnb.evidence import pictures


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
    after = pictures.reduced(before)
    assert len(after) < len(before) / 2
    difference = np.abs(shown(after) - drawn())
    assert difference[:50].max() == 0  # the background is still white
    assert difference.mean() < 8  # of 255, on noise, the worst there is
    assert pictures.reduced(before) == after


def test_what_is_reduced_stays_as_it_is():
    after = pictures.reduced(png(drawn()))
    assert pictures.reduced(after) == after


def test_what_is_see_through_becomes_white():
    array = np.concatenate((drawn(), np.full((300, 400, 1), 255, np.uint8)), 2)
    array[:50] = 0
    assert (shown(pictures.reduced(png(array)))[:50] == 255).all()


def test_only_large_pictures_of_a_notebook_are_touched():
    large, small = (b64encode(png(part)).decode() for part in (drawn(), drawn()[:5, :5]))
    outputs = [
        nbformat.v4.new_output("display_data", {"image/png": each, "text/plain": "x"}) for each in (large, small)
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("draw()", outputs=outputs)])
    notebook.cells.append(nbformat.v4.new_markdown_cell("text"))
    first, second = pictures.lighten(notebook).cells[0].outputs
    assert len(first.data["image/png"]) < len(large) / 2
    assert second.data["image/png"] == small
    nbformat.validate(notebook)
