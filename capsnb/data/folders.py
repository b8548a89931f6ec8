"""Folders of image files: a sub-folder per class, any common format, one or three channels. Links are followed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from capsnb.data.formats import OWN, Arrays, Parts, check

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


def labelled(
    found: dict[str, list[Path]],
    folder: Path,
    remedy: str,
    *,
    classes: Sequence[str] | None = None,
    channels: int | None = None,
) -> tuple[Arrays, tuple[str, ...]]:
    """Image files by class as Arrays, not decoded yet, labelled by the classes' order in `found`, or in `classes`."""
    known = tuple(found) if classes is None else tuple(classes)
    extra = next((name for name in found if name not in known), None)
    if extra is not None:
        raise ValueError(f"{folder / extra} is a class that the training folder does not have; {remedy}.")
    labels = np.repeat([known.index(name) for name in found], [len(files) for files in found.values()])
    pictures = Pictures(tuple(file for files in found.values() for file in files), remedy, channels)
    arrays = Arrays(pictures, labels.astype(np.int64))
    return check(arrays, folder, remedy, classes=len(known), every=classes is None), known


def read_class_folders(path: Path) -> Parts:
    """A user's train, (validation,) test with class folders in each; or plain class folders, to be split.

    Whether images are grey or colour, and which classes there are, is decided by the training images.
    """

    def sub(*names: str) -> Path | None:
        return next((path / name for name in names if (path / name).is_dir()), None)

    def read(folder: Path | None, classes: tuple[str, ...] | None = None) -> tuple[Arrays | None, tuple[str, ...]]:
        return labelled(class_files(folder, OWN), folder, OWN, classes=classes) if folder else (None, ())

    train, held, test = sub("train"), sub("validation", "valid", "val"), sub("test")
    if train is None and (held or test):
        raise FileNotFoundError(f"{path} has a folder {(held or test).name} but no folder train; {OWN}.")
    if train is None:
        arrays, classes = read(path)
        return Parts(classes, arrays, None, None)
    if test is None:
        held, test = None, held  # as Tiny ImageNet has it: with train and val alone, val is the test split
    if test is None:
        raise FileNotFoundError(f"{path} has a folder train but neither test nor validation beside it; {OWN}.")
    arrays, classes = read(train)
    return Parts(classes, arrays, read(held, classes)[0], read(test, classes)[0])


@dataclass(frozen=True)
class Pictures:
    """Image files in order, not decoded yet: as long as the array that `read` makes of them."""

    files: tuple[Path, ...]
    remedy: str
    channels: int | None = None  # 1 or 3; None: 1 if every file is grey
    square: bool = False  # cropped to the central square first
    size: tuple[int, int] | None = None  # height and width where `read` is asked for none; None: as the files are

    def __len__(self) -> int:
        return len(self.files)

    def read(self, size: tuple[int, int] | None = None, channels: int | None = None) -> np.ndarray:
        """All images as one array (N, C, H, W) uint8; decoded one at a time into it.

        Photographs stand as their camera says, and what is transparent is black, as beyond an image's edges. `size`
        (height, width) resizes with anti-aliasing; without it all must have one size. `channels` where the set's other
        images have decided. Raises ValueError for a file that is no image or does not fit the others.
        """
        from PIL import Image

        height, width, channels = self._shape(size or self.size, self.channels or channels)
        images = np.empty((len(self), channels, height, width), np.uint8)
        for file, target in zip(self.files, images, strict=True):
            with self._opened(file, " (truncated?)") as image:
                decoded = _opaque(image).convert("L" if channels == 1 else "RGB")
            if self.square:
                side = min(decoded.size)
                left, top = (decoded.width - side) // 2, (decoded.height - side) // 2
                decoded = decoded.crop((left, top, left + side, top + side))
            if decoded.size != (width, height):
                decoded = decoded.resize((width, height), Image.Resampling.BILINEAR)
            target[:] = np.asarray(decoded).reshape(height, width, channels).transpose(2, 0, 1)
        return images

    def _shape(self, size: tuple[int, int] | None, channels: int | None) -> tuple[int, int, int]:
        """Height, width and channels of the array, from the files' headers alone."""
        first = None
        for file in self.files:
            with self._opened(file) as image:
                mode, shape = image.mode, _upright_size(image)
            if mode in _DEEP:
                raise ValueError(f"{file} has more than 8 bits per channel (mode {mode}); convert it to 8 bits.")
            first = first or shape
            if size is None and not self.square and shape != first:
                raise ValueError(
                    f"{file} is {shape[0]}x{shape[1]} but {self.files[0].name} is {first[0]}x{first[1]}: "
                    f"the sizes are mixed; give size=... (in a DataSpec: resize=...) to resize them all."
                )
            if channels is None and mode not in _GREY:
                channels = 3
        height, width = size or ((min(first),) * 2 if self.square else first[::-1])
        return height, width, channels or 1

    @contextmanager
    def _opened(self, file: Path, perhaps: str = "") -> Iterator[Any]:
        """An image file, and one sentence where it cannot be opened or what is done with it fails."""
        from PIL import Image, UnidentifiedImageError

        unreadable = (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError)
        try:
            with Image.open(file) as image:
                yield image
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{file} is missing; {self.remedy}.") from error
        except unreadable as error:
            raise ValueError(f"{file} is unreadable as an image{perhaps}; {self.remedy}.") from error


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
