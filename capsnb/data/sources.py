"""From a name or a path to checked arrays: finding, reading, listing and fetching image sets below the data folder.

A named set may also lie as <name>/{train,test}.npz (images, labels), and any class folder or .npz file is a set too.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from capsnb.data import formats, layouts
from capsnb.data.catalogue import SOURCES
from capsnb.data.folders import Pictures, holds_images, read_class_folders, sub_folders
from capsnb.data.formats import OWN, Arrays, Counts, Parts
from capsnb.data.layouts import Source
from capsnb.data.npz import count_npz_folder, is_npz_folder, read_npz_file, read_npz_folder
from capsnb.data.pixels import resize
from capsnb.installation import own_folder

Size = tuple[int, int] | None  # height and width


class Found(NamedTuple):
    """A set as its files hold it, and the sentence that names its origin."""

    name: str
    source: str
    parts: Parts
    validation_cap: int | None


def data_dir(given: str | os.PathLike | None = None) -> Path:
    """`given`, else CAPSNB_DATA, else data/cache of the project, else of the user's own data folder."""
    chosen = given or os.environ.get("CAPSNB_DATA")
    if chosen:
        return Path(chosen).expanduser()
    return own_folder("data/cache")


def names() -> tuple[str, ...]:
    """The names that `load` knows; it also takes the path of a class folder or an .npz file."""
    return tuple(SOURCES)


def short_name(name: str | os.PathLike) -> str:
    """A set's name for people: a known set's, else the folder's own name or the file's without its ending."""
    if name in SOURCES:
        return str(name)
    path = Path(name).expanduser()
    return path.resolve().name if path.is_dir() else path.stem


def true_digest(name: str) -> str:
    """The `digest` of a known set's true content, or of that which recorded runs saw, whether it is here or not.

    "unknown" where nobody has told it.
    """
    return (SOURCES[name].digest if name in SOURCES else None) or "unknown"


def find(name: str | os.PathLike, folder: str | os.PathLike | None = None) -> Path | None:
    """Where a known set, or what a path names, lies, or None; nothing in it is read."""
    if name not in SOURCES:
        path = Path(name).expanduser()
        return path if os.fspath(name).strip() and path.exists() else None
    root, source = data_dir(folder), SOURCES[name]
    if is_npz_folder(root / name):
        return root / name
    if source.locate is not None:
        return source.locate()
    return next((root / below for below in source.folders if (root / below).is_dir()), None)


def gather(name: str | os.PathLike, folder: str | os.PathLike | None = None) -> Found:
    """Everything that a known set's files, or the files at a path, hold, checked; image files are not decoded yet.

    Raises FileNotFoundError where the set is missing, ValueError where something in it is wrong.
    """
    name = os.fspath(name)
    where = find(name, folder)
    if name not in SOURCES:
        return _gather_own(name, where)
    source, remedy = SOURCES[name], _remedy(name)
    if where is None:
        raise FileNotFoundError(f"{name} is not in {_looked_in(name, folder)}; {_how_to_get(name)}.")
    sentence = source.sentence
    if is_npz_folder(where):
        parts = read_npz_folder(where, remedy, source.classes or None)
        sentence += " (here as train.npz and test.npz, whose origin nothing checks)"
    else:
        parts = source.read(source, where, remedy)
    return Found(name, sentence, parts, source.validation_cap)


def _gather_own(name: str, path: Path | None) -> Found:
    if not name.strip():
        raise ValueError(f"the name of the image set is empty; give one of {', '.join(SOURCES)}, or a path.")
    if path is None:
        known = ", ".join(SOURCES)
        raise FileNotFoundError(f"{name!r} is neither a known image set ({known}) nor a path that exists; {OWN}.")
    if path.is_dir():
        parts = (
            read_npz_folder(path, OWN)
            if is_npz_folder(path)
            else layouts.read_idx_folder(path, OWN)
            if layouts.is_idx_folder(path)
            else read_class_folders(path)
        )
    elif path.suffix == ".npz":
        parts = read_npz_file(path)
    else:
        raise ValueError(f"{path} is not an image set; {OWN}.")
    if len(parts.classes) < 2:
        raise ValueError(
            f"{path} has one class, {', '.join(parts.classes)!r}, so there is nothing to tell apart: give two or more."
        )
    own = short_name(path)
    return Found(own, f"the user's own images, {own}", parts, None)


def is_own(path: Path) -> bool:
    """Whether a path is itself a set of images, and no folder in which known ones lie: by the names of files alone."""
    if not path.is_dir():
        return path.suffix == ".npz"
    if is_npz_folder(path) or layouts.is_idx_folder(path):
        return True
    if any(find(name, path) for name, source in SOURCES.items() if source.locate is None):
        return False
    return any(map(holds_images, sub_folders(path)))


def folder_of_sets(path: Path | None) -> Path | None:
    """The folder in which known sets lie; None where images of one's own are given in its place."""
    return None if path is not None and is_own(path) else path


def refuse_own(path: Path | None, remedy: str) -> None:
    """Raise ValueError for images of somebody's own where the folder of the known sets is meant."""
    if path is not None and is_own(path):
        raise ValueError(
            f"{path} is an image set of its own, not a folder of the sets known by name (see `capsnb data`): {remedy}."
        )


def read(name: str | os.PathLike, folder: str | os.PathLike | None, size: Size) -> Found:
    """What `gather` finds as arrays of one shape, at `size` where it is given; errors as `gather`."""
    found = gather(name, folder)
    classes, *parts = found.parts
    channels: int | None = None
    arrays: list[Any] = []
    for part in parts:
        if part is not None:
            images = _decoded(part.images, size, channels)
            if isinstance(part.images, Pictures) and (where := find(name, folder)):
                beside = arrays[0].images if arrays else None
                images = formats.full_range(images, where, OWN, beside=beside)
            part = Arrays(images, part.labels)
            channels = channels or images.shape[1]  # of the training images
        arrays.append(part)
    images = arrays[0].images
    if len(images) and all((image == image[:, :1, :1]).all() for image in images):
        raise ValueError(
            f"{find(name, folder)}: each of the {len(images):,} training images is of one even colour, so there is "
            "no shape to learn; give others."
        )
    if len(images) and all((image == images[0]).all() for image in images):
        raise ValueError(
            f"{find(name, folder)}: all {len(images):,} training images are one and the same, so there is nothing to "
            "learn; give others."
        )
    expected = images.shape[1:]
    for split, part in zip(("validation", "test"), arrays[1:], strict=True):
        if part is not None and part.images.shape[1:] != expected:
            raise ValueError(
                f"{find(name, folder)}: the sizes are mixed, {split} images are {part.images.shape[1:]} (C, H, W) but "
                f"training images {expected}; give size=... (in a DataSpec: resize=...) to resize them "
                f"all, and the same number of channels."
            )
    return found._replace(parts=Parts(classes, *arrays))


def _decoded(images: np.ndarray | Pictures, size: Size, channels: int | None) -> np.ndarray:
    if isinstance(images, Pictures):
        return images.read(size, channels)
    if size is None or images.shape[2:] == size:
        return images
    return resize(torch.from_numpy(np.require(images, requirements="W")), *size).numpy()


def available(folder: str | os.PathLike | None = None) -> list[dict]:
    """What is where: a row (name, where, train, validation, test, note) per known set; counts come from headers only.

    `where` and the counts are None for a set that is not there, whose note then says how to get it.
    """
    rows = []
    for name, source in SOURCES.items():
        row: dict[str, Any] = {"name": name, "where": None, "train": None, "validation": None, "test": None, "note": ""}
        where = find(name, folder)
        if where is None:
            row["note"] = f"not there; {_how_to_get(name)}"
        else:
            row["where"] = str(where)
            try:
                counts = _counts(source, where, _remedy(name))
                row |= zip(("train", "validation", "test"), counts, strict=True)
                row["note"] = source.sentence
            except (ValueError, OSError) as error:
                row["note"] = str(error)
        rows.append(row)
    return rows


def counts_of(parts: Parts) -> Counts:
    """How many images there are in each part."""
    validation, test = (part and len(part.labels) for part in (parts.validation, parts.test))
    return Counts(len(parts.train.labels), validation, test)


def shares(counts: Counts, validation_cap: int | None) -> tuple[int, int, int]:
    """How many images train, validate and test: a fifth tests and a tenth (capped) validates, if the files say not."""
    train, validation, test = counts
    tenth = train // 10 if validation_cap is None else min(train // 10, validation_cap)
    if test is None:
        test = train // 5
        train -= test
    if validation is None:
        validation = tenth
        train -= validation
    return train, validation, test


def fetch(name: str, folder: str | os.PathLike | None = None) -> Path:
    """Download a known set through torchvision into the data folder, all of it or nothing, and return its folder.

    A set that is there and whole is left alone. Raises ValueError for a set that must be got by hand or a folder that
    cannot be written, and FileNotFoundError where the download fails.
    """
    if name not in SOURCES:
        raise ValueError(f"{name!r} is not a set that can be fetched; the known sets are {', '.join(SOURCES)}.")
    source, root, where = SOURCES[name], data_dir(folder), find(name, folder)
    if where is not None and _is_whole(source, where, _remedy(name)):
        return where
    if isinstance(source.fetch, str):
        raise ValueError(f"{name} is not fetched by capsnb; {_how_to_get(name, root)}.")
    try:
        root.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".fetch-{name}-", dir=root))
    except OSError as error:
        raise ValueError(
            f"{root} cannot be written ({error.strerror}), so {name} cannot be fetched into it; "
            f"set CAPSNB_DATA to a folder of yours."
        ) from error
    try:
        source.fetch(temporary)
        _count(source, temporary / source.folders[0], _remedy(name))
        _move_into(temporary, root)
    except ValueError:
        raise
    except Exception as error:  # torchvision, urllib and gdown each raise kinds of their own
        raise FileNotFoundError(
            f"{name} could not be downloaded ({formats.brief(error)}); "
            f"check the network, or put the files into {root / source.folders[0]} yourself."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return root / source.folders[0]


def _move_into(temporary: Path, root: Path) -> None:
    """Rename what was downloaded into place: whole folders where new, else file by file over damaged ones."""
    for top in temporary.iterdir():
        if not (root / top.name).exists():
            os.replace(top, root / top.name)
            continue
        for file in [path for path in (top, *top.rglob("*")) if path.is_file()]:
            target = root / file.relative_to(temporary)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)


def _is_whole(source: Source, where: Path, remedy: str) -> bool:
    try:
        _counts(source, where, remedy)
        for file in where.iterdir():
            if file.name in source.md5:
                formats.check_md5(file, source.md5[file.name], remedy)
    except (ValueError, OSError):
        return False
    return True


def _counts(source: Source, where: Path, remedy: str) -> tuple[int, int, int]:
    if is_npz_folder(where):
        return shares(count_npz_folder(where, remedy), source.validation_cap)
    return shares(_count(source, where, remedy), source.validation_cap)


def _count(source: Source, where: Path, remedy: str) -> Counts:
    if source.count is not None:
        return source.count(where, remedy)
    return counts_of(source.read(source, where, remedy))


def _remedy(name: str) -> str:
    if isinstance(SOURCES[name].fetch, str):
        return f"replace it ({SOURCES[name].fetch})"
    return f"`capsnb data fetch {name}` gets what is missing or damaged, and leaves the rest"


def _how_to_get(name: str, root: Path | None = None) -> str:
    source = SOURCES[name]
    if isinstance(source.fetch, str):
        if source.locate is not None:
            return source.fetch
        below = source.folders[0] if root is None else root / source.folders[0]
        return f"{source.fetch} into {below}, or set CAPSNB_DATA to the folder that has it"
    return f"run `capsnb data fetch {name}`, or set CAPSNB_DATA to the folder that has it"


def _looked_in(name: str, folder: str | os.PathLike | None) -> str:
    root = data_dir(folder)
    places = ", ".join((*SOURCES[name].folders, f"{name}/train.npz"))
    return f"{root} (looked for {places})" if root.is_dir() else f"{root}, which does not exist"
