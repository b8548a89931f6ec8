"""Pictures straight from arrays to PNG bytes: what a widget shows while a finger moves a slider."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from io import BytesIO
from typing import Any

import ipywidgets as widgets
import matplotlib as mpl
import numpy as np
from PIL import Image

from capsnb.plot.style import BLUE, ORANGE, array

MORE, LESS = (np.array([int(colour[n : n + 2], 16) for n in (1, 3, 5)]) for colour in (ORANGE, BLUE))
DIVERGING = (mpl.colormaps["PuOr_r"](np.arange(256))[:, :3] * 255).astype(np.uint8)


class Picture(widgets.HTML):
    """A picture with its caption above; `png` are its bytes. width, height: on the page, in pixels."""

    def __init__(self, *, width: int = 150, height: int | None = None) -> None:
        super().__init__()
        self.png, self._size = b"", (width, height or width)

    def show(self, pixels: np.ndarray, caption: str, alt: str | None = None) -> None:
        """Show pixels, as `png` takes them. alt: what a screen reader says, the caption when None."""
        self.png = png(pixels)
        width, height = self._size
        wide, high = (f"calc({side}px*var(--capsnb-scale,1))" for side in self._size)
        size = f'width="{width}" height="{height}" style="width:{wide};height:{high}"'
        image = f'<img {size} decoding="sync" alt="{escape(alt or caption)}" src="{data_uri(self.png)}">'
        self.value = f'<figure style="width:{wide}"><figcaption>{escape(caption)}</figcaption>{image}</figure>'


def png(pixels: np.ndarray) -> bytes:
    """uint8 (H, W), (H, W, 3) or (H, W, 4) as a PNG, lightly compressed: bytes are cheap here, time is not."""
    stream = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def data_uri(content: bytes) -> str:
    """A PNG as the address of an image."""
    return "data:image/png;base64," + b64encode(content).decode()


def as_bytes(image: Any) -> np.ndarray:
    """An image (C, H, W), uint8 or in [0, 1], as uint8 (H, W) or (H, W, 3)."""
    values = array(image)
    if values.ndim != 3 or values.shape[0] not in (1, 3):
        raise ValueError(f"a picture is (1, H, W) or (3, H, W), not {values.shape}.")
    if values.dtype != np.uint8:
        values = (np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)
    return values[0] if len(values) == 1 else values.transpose(1, 2, 0)


def signed(difference: Any) -> np.ndarray:
    """A difference of images (C, H, W): orange where it is above 0, blue below, clear where there is none. (H, W, 4)

    A difference of 1 is fully opaque. The mean over channels is shown.
    """
    values = array(difference).mean(0)
    coloured = np.where(values[..., None] > 0, MORE, LESS)
    opacity = np.clip(np.abs(values), 0, 1) * 255
    return np.concatenate((coloured, opacity[..., None]), -1).astype(np.uint8)


def heat(values: Any, centre: float, largest: float) -> np.ndarray:
    """Values (H, W) >= 0 in a diverging colour map: 0 at one end, `centre` in its middle, `largest` at the other.
    (H, W, 3)"""
    shown = array(values)
    above = 0.5 + 0.5 * (shown - centre) / max(largest - centre, 1e-12)
    share = np.where(shown > centre, above, 0.5 * shown / max(centre, 1e-12))
    return DIVERGING[(np.clip(share, 0, 1) * 255).astype(np.uint8)]


def overlay(image: Any, weight: Any) -> np.ndarray:
    """An image (C, H, W), darkened, with a weight (H, W) in [0, 1] laid over it in orange. (H, W, 3)"""
    grey = as_bytes(image).astype(float)
    grey = (grey[..., None] if grey.ndim == 2 else grey) * 0.6
    share = np.clip(array(weight), 0, 1)[..., None] * 0.85
    return ((1 - share) * grey + share * MORE).astype(np.uint8)


def tiles(pictures: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Pictures (H, W, 3) in rows of so many, with a clear pixel between them. (H', W', 4)"""
    height, width = pictures[0].shape[:2]
    rows = -(-len(pictures) // columns)
    canvas = np.zeros((rows * (height + 1) - 1, columns * (width + 1) - 1, 4), np.uint8)
    for place, picture in enumerate(pictures):
        top, left = (place // columns) * (height + 1), (place % columns) * (width + 1)
        canvas[top : top + height, left : left + width] = np.dstack([picture, np.full((height, width), 255, np.uint8)])
    return canvas
