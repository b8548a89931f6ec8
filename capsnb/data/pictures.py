"""One picture as it is meant, whatever its file holds: the same for class folders and for what somebody uploads.

It stands as its camera says. Where it is transparent it gets the ground that keeps its ink: black, or white where what
is opaque is dark on the whole. More than 8 bits per channel in colour are refused, as Pillow would cut them off.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from capsnb.disk import refuse_pointer

# the suffixes of what Pillow reads as pictures; it also knows some of films, drawings and tables, left out here
_SUFFIXES = (
    ".apng .avif .bmp .bw .cur .dds .dib .gif .icb .icns .ico .im .j2c .j2k .jfif .jp2 .jpc .jpe .jpeg .jpf "
    ".jpg .jpx .msp .pbm .pcx .pfm .pgm .png .pnm .ppm .psd .pxr .qoi .ras .rgb .rgba .sgi .tga .tif .tiff .vda .vst "
    ".webp .xbm .xpm"
)
SUFFIXES = frozenset(_SUFFIXES.split())
GREY = ("1", "L", "LA")
_CAMERA, _ORIENTATION = ("JPEG", "MPO", "TIFF", "WEBP", "AVIF"), 0x0112
_DEEP_GREY = ("I", "F")
_LAYERED = ("MPO", "ICO", "ICNS", "PSD")  # previews, sizes and layers of one picture, no further ones


class Unfit(ValueError):
    """A picture that can be read and cannot be used, in one sentence."""


@contextmanager
def opened(file: Path | BinaryIO, broken: str) -> Iterator[Any]:
    """An image file as Pillow opens it. ValueError(broken) where that, or what is done with it inside, fails.

    FileNotFoundError and Unfit pass.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata and of large pictures
            # opened here: Pillow would map an unpacked TIFF that it knows by name into memory, and mistake a turned one
            with open(file, "rb") if isinstance(file, Path) else file as stream, Image.open(stream) as image:
                yield image
    except (FileNotFoundError, Unfit):
        raise
    except Exception as error:  # each format raises kinds of its own on a damaged file
        if isinstance(file, Path):
            refuse_pointer(file)
        raise ValueError(broken) from error


def bits(image: Any, name: str) -> str:
    """ "grey" for a picture of one deep channel, which has all its bits; "" for one of 8. Unfit for deep colours."""
    if image.mode.startswith(_DEEP_GREY):
        return "grey"
    if image.format in ("PNG", "TIFF", "SGI") and ";16" in str(image.tile):
        raise Unfit(f"{name} has more than 8 bits per channel (colours of 16); convert it to 8 bits.")
    return ""


def has_pages(image: Any) -> bool:
    """Whether the file has more pictures than the first one."""
    return image.format not in _LAYERED and getattr(image, "is_animated", False)


def upright_size(image: Any) -> tuple[int, int]:
    """Width and height as the picture will be read, from its header."""
    # Pillow turns a TIFF by itself, and gives it the size that it has then
    return image.size[::-1] if _orientation(image) >= 5 and image.format != "TIFF" else image.size


def upright(image: Any) -> Any:
    """The picture turned as its camera says."""
    from PIL import ImageOps

    return ImageOps.exif_transpose(image) if _orientation(image) > 1 else image


def settled(image: Any) -> Any:
    """The picture upright and, where it is transparent, on the ground that keeps its ink."""
    from PIL import Image

    image = upright(image)
    if image.mode not in ("LA", "PA", "RGBA", "La", "RGBa") and "transparency" not in image.info:
        return image
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, (ground(np.asarray(layer)),) * 3 + (255,)), layer)


def ground(pixels: np.ndarray) -> int:
    """What a picture (H, W, 4) is put on where it is transparent: 255 if its opaque part is dark, else 0."""
    opacity = pixels[..., 3].astype(np.float64)
    ink = (pixels[..., :3] @ np.array([0.299, 0.587, 0.114]) * opacity).sum()
    return 255 if ink < 128 * opacity.sum() else 0


def _orientation(image: Any) -> int:
    known = image.format in _CAMERA or "exif" in image.info
    return image.getexif().get(_ORIENTATION, 1) if known else 1
