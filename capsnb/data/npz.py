"""Image sets as .npz files: one file of `images` and `labels`, or a folder with train.npz, test.npz, validation.npz."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from capsnb.data.formats import OWN, Arrays, Counts, Parts, brief, check, full_range, open_file


def is_npz_folder(where: Path) -> bool:
    """Whether a folder holds a set of .npz files."""
    return (where / "train.npz").is_file() or (where / "test.npz").is_file()


def read_npz_file(path: Path) -> Parts:
    """A user's single .npz file, to be split."""
    arrays, classes = _named_classes(path, OWN)
    return Parts(classes, arrays, None, None)


def read_npz_folder(where: Path, remedy: str, known: tuple[str, ...] | None = None) -> Parts:
    """train.npz and test.npz, and validation.npz where it lies; classes from train.npz, else `known`, else numbers."""
    arrays, classes = _named_classes(where / "train.npz", remedy, known)
    others = []
    for name in ("validation.npz", "test.npz"):
        other = None
        if name == "test.npz" or (where / name).is_file():
            other, _ = _read_file(where / name, remedy, beside=arrays.images)
            check(other, where / name, remedy, classes=len(classes), every=False)
        others.append(other)
    return Parts(classes, arrays, *others)


def count_npz_folder(where: Path, remedy: str) -> Counts:
    """How many images they hold, from their headers."""
    held = where / "validation.npz"
    return Counts(
        _count_file(where / "train.npz", remedy),
        _count_file(held, remedy) if held.is_file() else None,
        _count_file(where / "test.npz", remedy),
    )


def _named_classes(path: Path, remedy: str, known: tuple[str, ...] | None = None) -> tuple[Arrays, tuple[str, ...]]:
    arrays, classes = _read_file(path, remedy)
    classes = classes or known
    check(arrays, path, remedy, classes=len(classes) if classes else None)
    return arrays, classes or tuple(str(label) for label in range(int(arrays.labels.max()) + 1))


def _count_file(path: Path, remedy: str) -> int:
    """How many labels an .npz file holds, from the header of its `labels` alone."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("labels.npy") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            return read(file)[0][0]
    except FileNotFoundError:
        raise
    except Exception as error:  # as in `_read_file`
        raise ValueError(f"{path} is not an .npz file with images and labels ({brief(error)}); {remedy}.") from error


def _read_file(path: Path, remedy: str, beside: np.ndarray | None = None) -> tuple[Arrays, tuple[str, ...] | None]:
    """Images and labels of an .npz file, and its class names where it has `classes`.

    Images: (N, H, W), (N, H, W, C) or (N, C, H, W) with C 1 or 3; whole numbers 0 to 255,
    or 0 and 1, or floats in [0, 1]. Labels: integers (N,). beside: see `_bytes`.
    """
    with open_file(path, remedy) as file:
        try:
            with np.load(file) as archive:
                found = {key: archive[key] for key in ("images", "labels", "classes") if key in archive.files}
        except Exception as error:  # a damaged archive is no one error of numpy, zipfile, zlib and struct
            raise ValueError(f"{path} is truncated or not an .npz file ({brief(error)}); {remedy}.") from error
    missing = [key for key in ("images", "labels") if key not in found]
    if missing:
        raise ValueError(f"{path} has no array named {' and '.join(missing)}; {remedy}.")
    images, labels = found["images"], found["labels"]
    if labels.dtype.kind not in "iu" or labels.size != len(labels):
        raise ValueError(
            f"{path}: labels are {labels.dtype} of shape {labels.shape}, not whole numbers of shape (N,); {remedy}."
        )
    classes = tuple(map(str, found["classes"])) if "classes" in found else None
    images = _channels_first(_bytes(images, path, remedy, beside), path, remedy)
    return Arrays(images, labels.reshape(-1).astype(np.int64)), classes


def _bytes(images: np.ndarray, path: Path, remedy: str, beside: np.ndarray | None = None) -> np.ndarray:
    """Images as uint8; beside: as `full_range` has it."""
    low, high = (images.min(), images.max()) if images.size and images.dtype.kind in "biuf" else (0, 0)
    if images.dtype.kind == "f" and low >= 0 and high <= 1:
        return full_range(np.rint(images * 255).astype(np.uint8), path, remedy, least=1, beside=beside)
    if images.dtype.kind in "biu" and low >= 0 and high <= 255:
        return full_range(images.astype(np.uint8), path, remedy, beside=beside)
    raise ValueError(
        f"{path}: images are {images.dtype} from {low} to {high}, not whole numbers 0 to 255 or floats 0 to 1; "
        f"{remedy}."
    )


def _channels_first(images: np.ndarray, path: Path, remedy: str) -> np.ndarray:
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[-1] in (1, 3):
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    if images.ndim == 4 and images.shape[1] in (1, 3):
        return images
    raise ValueError(
        f"{path}: images have shape {images.shape}, not (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or 3 channels; "
        f"{remedy}."
    )
