"""`digest`: which images a set holds, as twelve hex digits that its content alone decides."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from capsnb.data import sources
from capsnb.data.folders import Pictures
from capsnb.data.formats import Arrays, open_file
from capsnb.data.image_set import SPLITS
from capsnb.disk import keep
from capsnb.installation import user_cache

_VERSION = 2  # raised when the same files would be read as other images
_DECODED = 2  # the same of image files, which enter as their bytes

_known: dict[str, str] = {}  # of this process: key of files -> digest


def digest(name: str | os.PathLike, data_dir: str | os.PathLike | None = None) -> str:
    """Twelve hex digits for a set's content, by name, or by the path of a class folder or .npz file.

    They stand for what is read before any resizing: class names, splits, labels and images, in their order, and how
    many images validate by default. So the same arrays have the same digest wherever they lie and however they are
    packed (IDX, .gz or not, .npz, the authors' own format). Images that lie one to a file (class folders, Tiny
    ImageNet, CelebA) enter as the bytes of the files that the reader opens, through links, undecoded: decoding takes
    minutes for the large sets, and a JPEG's pixels depend on who decodes it. File names count for the order alone.

    It is kept, in memory and in the user's cache folder, for as long as no file changes in size, time or place.
    Raises FileNotFoundError where the set is missing and ValueError where something in it is wrong, as `load` does.
    """
    where = sources.find(name, data_dir)
    if where is None:
        sources.gather(name, data_dir)  # raises what the reader says
        raise FileNotFoundError(f"{name} came while it was looked for; try again.")
    stamps = hashlib.sha256("\n".join(_stamps(where)).encode()).hexdigest()
    place = f"{_VERSION} {name if name in sources.SOURCES else ''} {where.resolve()}"
    file = user_cache() / "digests" / hashlib.sha256(place.encode()).hexdigest()[:24]
    key = f"{file.name} {stamps}"
    if key not in _known:
        found = _kept(file, stamps)
        if found is None:
            found = _content(sources.gather(name, data_dir))
            keep(file, f"{stamps} {found}\n".encode())
        _known[key] = found
    return _known[key]


def _content(found: sources.Found) -> str:
    """The digest of a set that is read but not decoded."""
    classes, *parts = found.parts
    content = hashlib.sha256(repr((classes, found.validation_cap)).encode())
    for split, part in zip(SPLITS, parts, strict=True):
        for piece in _pieces(split, part):
            content.update(piece)
    return content.hexdigest()[:12]


def _pieces(split: str, part: Arrays | None) -> Iterator[Any]:
    if part is None:
        yield f"{split}: of train\n".encode()
        return
    images, labels = part
    yield f"{split}: {len(labels)} images\n".encode()
    yield labels.astype("<i8")
    if isinstance(images, Pictures):
        yield f"decoded by rule {_DECODED}\n".encode()
        for file in images.files:
            with open_file(file, images.remedy) as opened:
                content = opened.read()
            yield f"{len(content)} bytes\n".encode()
            yield content
    else:
        yield f"{images.shape}\n".encode()
        yield np.ascontiguousarray(images)


def _stamps(where: Path) -> Iterator[str]:
    """A line for each file and folder that a set's readers may see, which changes when it does."""
    if not where.is_dir():
        yield _stamp(where.stat())
        return
    seen = set()

    def below(folder: Path | str, depth: int) -> Iterator[str]:
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            try:
                stat = entry.stat()
            except OSError:  # a link to nothing, or in a circle
                yield f"{entry.name} is not there"
                continue
            yield f"{depth} {entry.name} {_stamp(stat)}"
            itself = stat.st_dev, stat.st_ino
            if itself not in seen and entry.is_dir():
                seen.add(itself)
                yield from below(entry.path, depth + 1)

    yield from below(where, 1)


def _stamp(stat: os.stat_result) -> str:
    return f"{stat.st_dev} {stat.st_ino} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"


def _kept(file: Path, stamps: str) -> str | None:
    """The digest in a file of the cache, if it was made of files as they are now."""
    try:
        known, found = file.read_text().split()
    except (OSError, ValueError):
        return None
    return found if known == stamps else None
