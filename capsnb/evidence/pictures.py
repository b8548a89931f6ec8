"""Pictures of executed notebooks, made small: many thin lines in millions of colours do not compress."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections import Counter
from io import BytesIO

from nbformat import NotebookNode

LARGE = 20 * 1024  # bytes from which a picture is reduced


def lighten(notebook: NotebookNode, *, above: int = LARGE) -> NotebookNode:
    """Reduce the PNG outputs of more than `above` bytes to 256 colours, in place; the same file every time."""
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            png = output.get("data", {}).get("image/png")
            if png and len(content := b64decode(png)) > above:
                output["data"]["image/png"] = b64encode(reduced(content)).decode() + "\n"
    return notebook


def reduced(png: bytes) -> bytes:
    """A PNG with a palette of 256 colours, the commonest one kept exactly; the one given where that is smaller."""
    from PIL import Image

    full = Image.open(BytesIO(png))
    if full.mode == "P":
        return png
    behind = Image.new("RGBA", full.size, "white")
    flat = Image.alpha_composite(behind, full.convert("RGBA")).convert("RGB")
    small = flat.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    # an averaged background is not quite white
    (x, y) = divmod(_commonest(flat.tobytes()), flat.width)[::-1]
    palette, place = small.getpalette(), 3 * small.getpixel((x, y))
    palette[place : place + 3] = flat.getpixel((x, y))
    small.putpalette(palette)
    stream = BytesIO()
    small.save(stream, "PNG", optimize=True, dpi=full.info.get("dpi", (72, 72)))
    return min(stream.getvalue(), png, key=len)


def _commonest(pixels: bytes) -> int:
    """Where the commonest colour of RGB bytes stands first, counted in pixels."""
    triples = [pixels[n : n + 3] for n in range(0, len(pixels), 3)]
    return triples.index(Counter(triples).most_common(1)[0][0])
