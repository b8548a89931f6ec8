"""From a name or a path to checked arrays: finding, counting, reading and fetching image sets below the data folder.

A named set may also lie as <name>/{train,test}.npz (images, labels), and any class folder or .npz file is a set too.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from capsnb.data import folders, formats
from capsnb.data.catalogue import SOURCES, Source
from capsnb.data.formats import Arrays, check
from capsnb.data.layouts import Counts, Parts, Size, check_sums
from capsnb.data.pixels import resize
from capsnb.data.sample import read_sample, sample_csv
from capsnb.disk import project

_OWN = "give a folder with a sub-folder of images per class, or an .npz file with images and labels"


class Found(NamedTuple):
    """A set as its files hold it, and the sentence that names its origin."""

    name: str
    source: str
    parts: Parts
    validation_cap: int | None


def data_dir(given: str | os.PathLike | None = None) -> Path:
    """`given`, else CAPSNB_DATA, else data/cache of the project this package lies in, else of the working directory."""
    chosen = given or os.environ.get("CAPSNB_DATA")
    if chosen:
        return Path(chosen).expanduser()
    return project() / "data" / "cache"


def find(name: str, folder: str | os.PathLike | None = None) -> Path | None:
    """Where a known set lies, or None; nothing in it is read."""
    root = data_dir(folder)
    if _is_npz_folder(root / name):
        return root / name
    if name == "mnist-sample":
        return sample_csv()
    return next((root / below for below in SOURCES[name].folders if (root / below).is_dir()), None)


def read(name: str, folder: str | os.PathLike | None, size: Size) -> Found:
    """Everything that a known set's files, or the files at a path, hold: checked, and resized where `size` is given."""
    name = os.fspath(name)
    if name not in SOURCES:
        return _read_path(name, size)
    source, where, remedy = SOURCES[name], find(name, folder), _remedy(name)
    if where is None:
        raise FileNotFoundError(f"{name} is not in {_looked_in(name, folder)}; {_how_to_get(name)}.")
    sentence = source.sentence
    if _is_npz_folder(where):
        parts = _read_npz_folder(where, remedy, source.classes)
        sentence += " (here as train.npz and test.npz, whose origin nothing checks)"
    elif name == "mnist-sample":
        parts = read_sample(where, size, remedy, _sample_cache(folder))
    else:
        parts = source.read(where, size, remedy)
    return Found(name, sentence, _one_size(parts, size, where), source.validation_cap)


def available(folder: str | os.PathLike | None = None) -> list[dict]:
    """A row per known set: where it is and how many images it has, from headers; or a note that says how to get it."""
    rows = []
    for name, source in SOURCES.items():
        row = {"name": name, "where": None, "train": None, "validation": None, "test": None, "note": ""}
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
        source.count(temporary / source.folders[0], _remedy(name))
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
        check_sums(where, remedy)
    except (ValueError, OSError):
        return False
    return True


def _counts(source: Source, where: Path, remedy: str) -> tuple[int, int, int]:
    count = _count_npz_folder if _is_npz_folder(where) else source.count
    return shares(count(where, remedy), source.validation_cap)


def _remedy(name: str) -> str:
    if isinstance(SOURCES[name].fetch, str):
        return f"replace it ({SOURCES[name].fetch})"
    return f"delete what is there of it and run `capsnb data fetch {name}`"


def _how_to_get(name: str, root: Path | None = None) -> str:
    source = SOURCES[name]
    if name == "mnist-sample":
        return source.fetch
    if isinstance(source.fetch, str):
        below = source.folders[0] if root is None else root / source.folders[0]
        return f"{source.fetch} into {below}, or set CAPSNB_DATA to the folder that has it"
    return f"run `capsnb data fetch {name}`, or set CAPSNB_DATA to the folder that has it"


def _looked_in(name: str, folder: str | os.PathLike | None) -> str:
    root = data_dir(folder)
    places = ", ".join((*SOURCES[name].folders, f"{name}/train.npz"))
    return f"{root} (looked for {places})" if root.is_dir() else f"{root}, which does not exist"


def _sample_cache(folder: str | os.PathLike | None) -> Path | None:
    """Where the parsed sample is kept: in the data folder, which is made only where nobody named one."""
    root = data_dir(folder)
    if not (folder or os.environ.get("CAPSNB_DATA")):
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError:
            return None
    # a folder that nobody may write is left alone even by root, whom its mode would not stop
    writable = root.is_dir() and root.stat().st_mode & 0o222
    return root / "mnist-sample" / "parsed.npz" if writable else None


# ----------------------------------------------------------------------------------------- bring your own


def _read_path(name: str, size: Size) -> Found:
    path = Path(name).expanduser()
    if not name.strip():
        raise ValueError(f"the name of the image set is empty; give one of {', '.join(SOURCES)}, or a path.")
    if path.is_dir():
        parts = _read_npz_folder(path, _OWN) if _is_npz_folder(path) else _read_class_folders(path, size)
    elif path.is_file() and path.suffix == ".npz":
        arrays, classes = formats.read_npz(path, _OWN)
        check(arrays, path, _OWN, classes=len(classes) if classes else None)
        parts = Parts(classes or _numbers(arrays.labels), arrays, None, None)
    elif path.is_file():
        raise ValueError(f"{path} is not an image set; {_OWN}.")
    else:
        known = ", ".join(SOURCES)
        raise FileNotFoundError(f"{name!r} is neither a known image set ({known}) nor a path that exists; {_OWN}.")
    own = _own_name(path)
    return Found(own, f"the user's own images, {own}", _one_size(parts, size, path), None)


def content_name(name: str) -> str:
    """See `data.content_name`."""
    path = Path(name).expanduser()
    if name in SOURCES or not path.exists():
        return name
    inside = sorted(file for file in path.rglob("*") if file.suffix.lower() in (*folders.SUFFIXES, ".npz"))
    files = [(file, file.stat()) for file in (inside if path.is_dir() else [path])]
    stamps = tuple((str(file), stat.st_size, stat.st_mtime_ns) for file, stat in files)
    return f"{_own_name(path)} {_content(path, stamps)}"


@functools.lru_cache(maxsize=32)
def _content(path: Path, stamps: tuple[tuple[str, int, int], ...]) -> str:
    found = hashlib.sha256()
    for file, size, _ in stamps:
        found.update(f"{Path(file).relative_to(path).as_posix()}\n{size}\n".encode())
        found.update(Path(file).read_bytes())
    return found.hexdigest()[:12]


def _own_name(path: Path) -> str:
    return path.resolve().name if path.is_dir() else path.stem


def _read_class_folders(path: Path, size: Size) -> Parts:
    """train, (validation,) test with class folders in each; or plain class folders, to be split.

    Whether images are grey or colour, and which classes there are, is decided by the training images.
    """

    def sub(*names: str) -> Path | None:
        return next((path / name for name in names if (path / name).is_dir()), None)

    train, held, test = sub("train"), sub("validation", "valid", "val"), sub("test")
    if train is None and (held or test):
        raise FileNotFoundError(f"{path} has a folder {(held or test).name} but no folder train; {_OWN}.")
    if train is None:
        arrays, classes = folders.read_tree(path, _OWN, size=size)
        return Parts(classes, arrays, None, None)
    if test is None:
        held, test = None, held  # as Tiny ImageNet has it: with train and val alone, val is the test split
    if test is None:
        raise FileNotFoundError(f"{path} has a folder train but neither test nor validation beside it; {_OWN}.")
    arrays, classes = folders.read_tree(train, _OWN, size=size)
    channels = arrays.images.shape[1]
    held, test = (
        folder and folders.read_tree(folder, _OWN, classes=classes, size=size, channels=channels)[0]
        for folder in (held, test)
    )
    return Parts(classes, arrays, held, test)


def _is_npz_folder(where: Path) -> bool:
    return (where / "train.npz").is_file() or (where / "test.npz").is_file()


def _read_npz_folder(where: Path, remedy: str, known: tuple[str, ...] | None = None) -> Parts:
    arrays, classes = formats.read_npz(where / "train.npz", remedy)
    classes = classes or known
    check(arrays, where / "train.npz", remedy, classes=len(classes) if classes else None)
    classes = classes or _numbers(arrays.labels)
    others = []
    for name in ("validation.npz", "test.npz"):
        other = None
        if name == "test.npz" or (where / name).is_file():
            other, _ = formats.read_npz(where / name, remedy)
            check(other, where / name, remedy, classes=len(classes), every=False)
        others.append(other)
    return Parts(classes, arrays, *others)


def _count_npz_folder(where: Path, remedy: str) -> Counts:
    held = where / "validation.npz"
    return Counts(
        formats.npz_count(where / "train.npz", remedy),
        formats.npz_count(held, remedy) if held.is_file() else None,
        formats.npz_count(where / "test.npz", remedy),
    )


def _one_size(parts: Parts, size: Size, where: Path) -> Parts:
    """All parts at `size` where it is given; the same shape in each, or ValueError."""
    if size is not None:
        parts = Parts(parts.classes, *(part and _resized(part, size) for part in parts[1:]))
    expected = parts.train.images.shape[1:]
    for name, part in zip(("validation", "test"), parts[2:], strict=True):
        if part is not None and part.images.shape[1:] != expected:
            raise ValueError(
                f"{where}: the sizes are mixed, {name} images are {part.images.shape[1:]} (C, H, W) but "
                f"training images {expected}; give size=... (in a DataSpec: resize=...) to resize them "
                f"all, and the same number of channels."
            )
    return parts


def _resized(arrays: Arrays, size: tuple[int, int]) -> Arrays:
    return (
        arrays
        if arrays.images.shape[2:] == size
        else Arrays(resize(torch.from_numpy(arrays.images), *size).numpy(), arrays.labels)
    )


def _numbers(labels: np.ndarray) -> tuple[str, ...]:
    return tuple(str(i) for i in range(int(labels.max()) + 1))
