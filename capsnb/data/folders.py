"""Folders of image files as arrays: a sub-folder per class, any common format, one or three channels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from capsnb.data.formats import Arrays, check

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"))
_CAMERA, _ORIENTATION = ("JPEG", "MPO", "TIFF", "WEBP"), 0x0112
_GREY = ("1", "L", "LA")
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L")


def class_files(folder: Path, remedy: str, *, inner: str = "") -> dict[str, list[Path]]:
    """The image files below each class sub-folder of `folder`, sorted; hidden files and other files are left out.

    `inner` is a sub-folder of each class that holds its images (Tiny ImageNet's `images`), where it exists.
    """
    found = {}
    for child in sorted(folder.iterdir()):
        if child.is_dir() and not child.name.startswith("."):
            images = child / inner if inner and (child / inner).is_dir() else child
            found[child.name] = image_files(images)
            if not found[child.name]:
                raise ValueError(f"{images} is empty: the class {child.name!r} has no image file; {remedy}.")
    if not found:
        raise ValueError(f"{folder} is empty: it has no class sub-folder with images; {remedy}.")
    return found


def image_files(folder: Path) -> list[Path]:
    """The image files in `folder`, sorted by name."""
    return sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))


def read_tree(
    folder: Path,
    remedy: str,
    *,
    classes: Sequence[str] | None = None,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    inner: str = "",
) -> tuple[Arrays, tuple[str, ...]]:
    """All images of a folder with a sub-folder per class, labelled by the sub-folders' order, or by `classes`."""
    found = class_files(folder, remedy, inner=inner)
    known = tuple(found) if classes is None else tuple(classes)
    extra = [name for name in found if name not in known]
    if extra:
        raise ValueError(f"{folder / extra[0]} is a class that the training folder does not have; {remedy}.")
    labels = np.repeat([known.index(name) for name in found], [len(files) for files in found.values()])
    images = read_images([file for files in found.values() for file in files], remedy, size=size, channels=channels)
    return check(
        Arrays(images, labels.astype(np.int64)), folder, remedy, classes=len(known), every=classes is None
    ), known


def read_images(
    files: Sequence[Path],
    remedy: str,
    *,
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    square: bool = False,
) -> np.ndarray:
    """Image files as one array (N, C, H, W) uint8; decoded one at a time into it.

    Photographs stand as their camera says, and what is transparent is black, as beyond an image's edges. Grey only if
    every file is grey, unless `channels` says. `size` (height, width) resizes with anti-aliasing; without
    it all must have one size. `square` first crops to the central square.
    """
    from PIL import Image, UnidentifiedImageError

    unreadable = (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError)
    first = None
    for file in files:  # headers only
        try:
            with Image.open(file) as image:
                mode, shape = image.mode, _upright_size(image)
        except unreadable as error:
            raise ValueError(f"{file} is unreadable as an image; {remedy}.") from error
        if mode in _DEEP:
            raise ValueError(f"{file} has more than 8 bits per channel (mode {mode}); convert it to 8 bits.")
        first = first or shape
        if size is None and not square and shape != first:
            raise ValueError(
                f"{file} is {shape[0]}x{shape[1]} but {files[0].name} is {first[0]}x{first[1]}: "
                f"the sizes are mixed; give size=... (in a DataSpec: resize=...) to resize them all."
            )
        if channels is None and mode not in _GREY:
            channels = 3
    channels = channels or 1
    height, width = size or ((min(first),) * 2 if square else first[::-1])
    images = np.empty((len(files), channels, height, width), np.uint8)
    for file, target in zip(files, images, strict=True):
        try:
            with Image.open(file) as image:
                decoded = _opaque(image).convert("L" if channels == 1 else "RGB")
        except unreadable as error:
            raise ValueError(f"{file} is unreadable as an image (truncated?); {remedy}.") from error
        if square:
            side = min(decoded.size)
            left, top = (decoded.width - side) // 2, (decoded.height - side) // 2
            decoded = decoded.crop((left, top, left + side, top + side))
        if decoded.size != (width, height):
            decoded = decoded.resize((width, height), Image.Resampling.BILINEAR)
        target[:] = np.asarray(decoded).reshape(height, width, channels).transpose(2, 0, 1)
    return images


def _upright_size(image: Any) -> tuple[int, int]:
    """Width and height as the image will be read, from its header."""
    turned = image.format in _CAMERA and image.getexif().get(_ORIENTATION, 1) >= 5
    return image.size[::-1] if turned else image.size


def _opaque(image: Any) -> Any:
    """The image turned as its camera says, on black where it is transparent."""
    from PIL import Image, ImageOps

    if image.format in _CAMERA and image.getexif().get(_ORIENTATION, 1) > 1:
        image = ImageOps.exif_transpose(image)
    if image.mode not in ("LA", "PA", "RGBA") and "transparency" not in image.info:
        return image
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, (0, 0, 0, 255)), layer)
