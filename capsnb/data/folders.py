"""Folders of image files: a sub-folder per class, any common format, one or three channels. Links are followed."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from capsnb.data import pictures
from capsnb.data.formats import OWN, Arrays, Parts, check
from capsnb.data.pictures import Unfit

SPLIT_FOLDERS = ("train", "validation", "valid", "val", "test")


def class_files(folder: Path, remedy: str, *, inner: str = "") -> dict[str, list[Path]]:
    """The image files below each class sub-folder of `folder`, however deep, sorted; hidden ones are left out.

    `inner` is a sub-folder of each class that holds its images (Tiny ImageNet's `images`), where it exists. Files that
    are no images, and images beside the class folders, are counted and named in a warning.
    """
    found, others = {}, []
    for child in sorted(folder.iterdir()):
        if child.is_dir() and not child.name.startswith("."):
            images = child / inner if inner and (child / inner).is_dir() else child
            files = sorted(_below(images, (_itself(folder),)))
            found[child.name] = [file for file in files if _is_image(file)]
            others += [file for file in files if not _is_image(file) and file.is_file()]
            if not found[child.name]:
                raise ValueError(f"{images} is empty: the class {child.name!r} has no image file; {remedy}.")
        elif _is_image(child) and not child.name.startswith("."):
            others.append(child)
    if not found:
        raise ValueError(f"{folder} is empty: it has no class sub-folder with images; {remedy}.")
    if others:
        warnings.warn(f"{folder}: {_named(others, folder)} left out, no images of a class.", stacklevel=2)
    return found


def sub_folders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted, hidden ones left out."""
    return [child for child in sorted(folder.iterdir()) if child.is_dir() and not child.name.startswith(".")]


def holds_images(folder: Path) -> bool:
    """Whether an image lies below a folder, however deep."""
    return any(map(_is_image, _below(folder, ())))


def _below(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """Every file below a folder; a link to a folder that it lies in leads nowhere."""
    above = (*above, _itself(folder))
    for child in folder.iterdir():
        if child.name.startswith("."):
            continue
        if not child.is_dir():
            yield child
        elif _itself(child) not in above:
            yield from _below(child, above)


def _itself(folder: Path) -> tuple[int, int]:
    stat = folder.stat()
    return stat.st_dev, stat.st_ino


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in pictures.SUFFIXES


def _named(files: Sequence[Path], folder: Path) -> str:
    """How many files, and the first of them by name: "3 files (a/b.txt, c.txt, ...) are"."""
    names = ", ".join(str(file.relative_to(folder)) for file in files[:2]) + ", ..." * (len(files) > 2)
    return f"{len(files):,} file{'s' * (len(files) > 1)} ({names}) {'are' if len(files) > 1 else 'is'}"


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

    Among other class folders train, test and the like are classes, too, unless train and another of them have class
    folders of their own. Whether images are grey or colour, and which classes there are, is decided by the training
    images.
    """
    children = sub_folders(path)
    parts = [child.name for child in children if child.name in SPLIT_FOLDERS and sub_folders(child)]
    others = [child.name for child in children if child.name not in parts]
    if any(name not in SPLIT_FOLDERS for name in others) and not ("train" in parts and len(parts) > 1):
        parts = []
    elif not parts:
        parts = [name for name in others if name in SPLIT_FOLDERS]

    def sub(*names: str) -> Path | None:
        return next((path / name for name in names if name in parts), None)

    def read(folder: Path, classes: tuple[str, ...] | None = None) -> tuple[Arrays, tuple[str, ...]]:
        return labelled(class_files(folder, OWN), folder, OWN, classes=classes)

    train, held, test = sub("train"), sub("validation", "valid", "val"), sub("test")
    if train is None and (alone := held or test):
        raise FileNotFoundError(f"{path} has a folder {alone.name} but no folder train; {OWN}.")
    if train is None:
        arrays, classes = read(path)
        return Parts(classes, arrays, None, None)
    if test is None:
        held, test = None, held  # as Tiny ImageNet has it: with train and val alone, val is the test split
    if test is None:
        raise FileNotFoundError(f"{path} has a folder train but neither test nor validation beside it; {OWN}.")
    if unused := [name for name in [*others, *parts] if path / name not in (train, held, test)]:
        warnings.warn(f"{path}: the folders {', '.join(unused)} beside {train.name} are left out.", stacklevel=2)
    arrays, classes = read(train)
    return Parts(classes, arrays, read(held, classes)[0] if held else None, read(test, classes)[0])


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
        """All images as one array (N, C, H, W) uint8; decoded one at a time into it, by the rules of `pictures`.

        `size` (height, width) resizes with anti-aliasing; without it all must have one size. `channels` where the set's
        other images have decided. Of a file with several pages or frames the first is taken, which a warning says.
        Raises ValueError for a file that is no image or does not fit the others.
        """
        from PIL import Image

        channels, height, width = self.shape(size, channels)
        try:
            images = np.empty((len(self), channels, height, width), np.uint8)
        except (MemoryError, ValueError) as error:  # ValueError: more than could be addressed
            raise ValueError(
                f"{self.files[0].parent}: {len(self):,} images of {channels}x{height}x{width} take "
                f"{len(self) * channels * height * width / 1e9:,.1f} GB, more than there is here; give a smaller "
                "size=... (in a DataSpec: resize=...)."
            ) from error
        for file, target in zip(self.files, images, strict=True):
            with self._opened(file, " (truncated?)") as image:
                decoded = pictures.settled(image).convert("L" if channels == 1 else "RGB")
            if self.square:
                side = min(decoded.size)
                left, top = (decoded.width - side) // 2, (decoded.height - side) // 2
                decoded = decoded.crop((left, top, left + side, top + side))
            if decoded.size != (width, height):
                decoded = decoded.resize((width, height), Image.Resampling.BILINEAR)
            target[:] = np.asarray(decoded).reshape(height, width, channels).transpose(2, 0, 1)
        return images

    def shape(self, size: tuple[int, int] | None = None, channels: int | None = None) -> tuple[int, int, int]:
        """(C, H, W) of what `read` makes, from the files' headers alone; errors as `read`."""
        size, channels = size or self.size, self.channels or channels
        first: tuple[int, ...] = ()
        paged: list[Path] = []
        for file in self.files:
            with self._opened(file) as image:
                mode, shape = image.mode, pictures.upright_size(image)
                if pictures.bits(image, str(file)):
                    raise Unfit(f"{file} has more than 8 bits per channel (mode {mode}); convert it to 8 bits.")
                if pictures.has_pages(image):
                    paged.append(file)
            first = first or shape
            if size is None and not self.square and shape != first:
                raise ValueError(
                    f"{file} is {shape[0]}x{shape[1]} but {self.files[0].name} is {first[0]}x{first[1]}: "
                    f"the sizes are mixed; give size=... (in a DataSpec: resize=...) to resize them all."
                )
            if channels is None and mode not in pictures.GREY:
                channels = 3
        if paged:
            folder = Path(os.path.commonpath([file.parent for file in paged]))
            text = f"{folder}: {_named(paged, folder)} of several pages or frames, of which the first is taken."
            warnings.warn(text, stacklevel=2)
        height, width = size or ((min(first),) * 2 if self.square else first[::-1])
        return channels or 1, height, width

    @contextmanager
    def _opened(self, file: Path, perhaps: str = "") -> Iterator[Any]:
        """An image file, and one sentence where it cannot be opened or what is done with it fails."""
        try:
            with pictures.opened(file, f"{file} is unreadable as an image{perhaps}; {self.remedy}.") as image:
                yield image
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{file} is missing; {self.remedy}.") from error
