"""Readers of the file formats that image sets come in; each checks what it reads and fails in one sentence.

A `remedy` is the end of that sentence: what the reader of the message can do.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import pickle
import warnings
import zlib
from io import SEEK_CUR, BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from capsnb.disk import refuse_pointer

OWN = "give a folder with a sub-folder of images per class, or an .npz file with images and labels"  # a remedy
_FLAGS = b"\x06\0\0\0\x08\0\0\0"  # with which the head of an array in a MATLAB file begins
_PACKED_VARIABLE = 15  # the kind of such an element of a MATLAB file
PACKED = (EOFError, zlib.error, gzip.BadGzipFile)


class Arrays(NamedTuple):
    """The images and labels of one split."""

    images: Any  # (N, C, H, W) uint8; or folders.Pictures, image files that are not decoded yet
    labels: np.ndarray  # (N,) int64


class Parts(NamedTuple):
    """A set as its files hold it; a part that is None is made from the training images."""

    classes: tuple[str, ...]
    train: Arrays
    validation: Arrays | None
    test: Arrays | None


class Counts(NamedTuple):
    """How many images a set's files hold, read without decoding them; None where they are taken from `train`."""

    train: int
    validation: int | None
    test: int | None


def check(arrays: Arrays, path: Path, remedy: str, *, classes: int | None = None, every: bool = True) -> Arrays:
    """The same arrays, if counts agree, labels are 0..classes-1 and, with `every`, no class is empty; else ValueError.

    Without `classes` the largest label says how many there are.
    """
    images, labels = arrays
    if len(images) != len(labels):
        raise ValueError(f"{path} has {len(images):,} images but {len(labels):,} labels; {remedy}.")
    if not len(images):
        raise ValueError(f"{path} has no images; {remedy}.")
    classes = int(labels.max()) + 1 if classes is None else classes
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        allowed = f"0 to {classes - 1}" if classes > 0 else "0 or more"
        raise ValueError(f"{path}: label {labels[wrong[0]]} of image {wrong[0]} is out of range, {allowed}; {remedy}.")
    counts = np.bincount(labels, minlength=classes)
    if every and not counts.all():
        raise ValueError(f"{path}: class {int(np.argmin(counts))} of {classes} has no image; {remedy}.")
    return arrays


def full_range(
    images: np.ndarray, path: Path, remedy: str, *, least: int = 2, beside: np.ndarray | None = None
) -> np.ndarray:
    """uint8 images whose white is 255: those of 0 and 1 are read as black and white, which a warning says.

    ValueError where the brightest pixel of all, `least` to 31, may be white as well as nearly black. beside: the
    training images, where these are others: they have decided, and are black and white or not.
    """
    top = int(images.max()) if images.size else 0
    if beside is not None and not (top == 1 and np.isin(beside, (0, 255)).all()):
        return images
    if least <= top < 32:
        raise ValueError(
            f"{path}: the brightest pixel of all images is {top}, which may be white or nearly black; scale the images "
            f"so that white is 255; {remedy}."
        )
    if top != 1:
        return images
    warnings.warn(f"{path}: the pixels are 0 and 1, read as black and white.", stacklevel=2)
    return images * np.uint8(255)


def check_md5(path: Path, expected: str, remedy: str) -> None:
    """Raise ValueError unless the file's MD5 sum is `expected`."""
    found = md5(path, remedy)
    if found != expected:
        raise ValueError(
            f"{path} is truncated, damaged or another file: its MD5 sum is {found}, not {expected}; {remedy}."
        )


def md5(path: Path, remedy: str) -> str:
    """A file's MD5 sum in hex digits."""
    with open_file(path, remedy) as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def idx_shape(path: Path, rank: int, remedy: str) -> tuple[int, ...]:
    """The shape at the head of an IDX file (.gz or not) of unsigned bytes with `rank` axes; reads nothing else."""
    return _idx(path, rank, remedy, body=False)[0]


def read_idx(path: Path, rank: int, remedy: str) -> np.ndarray:
    """The array in an IDX file (.gz or not) of unsigned bytes with `rank` axes."""
    shape, body = _idx(path, rank, remedy, body=True)
    return as_array(body, np.dtype(np.uint8), shape, path, remedy)


def as_array(body: bytes, kind: np.dtype, shape: tuple[int, ...], path: Path, remedy: str) -> np.ndarray:
    """What stands behind the header of a file, if it is as long as that says; else ValueError."""
    expected = math.prod(shape) * kind.itemsize
    if len(body) != expected:
        wrong = "is truncated" if len(body) < expected else "is too long"
        raise ValueError(f"{path} {wrong}: it holds {len(body):,} bytes where its header says {expected:,}; {remedy}.")
    return np.frombuffer(body, kind).reshape(shape)


def _idx(path: Path, rank: int, remedy: str, *, body: bool) -> tuple[tuple[int, ...], bytes]:
    size = 4 + 4 * rank
    try:
        with open_file(path, remedy) as raw, gzip.open(raw) if path.suffix == ".gz" else raw as file:
            head, rest = file.read(size), file.read() if body else b""
    except PACKED as error:
        raise ValueError(f"{path} is truncated or damaged ({brief(error)}); {remedy}.") from error
    magic = bytes((0, 0, 8, rank))
    if head[:4] != magic[: len(head)]:
        raise ValueError(f"{path} has the wrong magic number 0x{head[:4].hex()}, not 0x{magic.hex()}; {remedy}.")
    if len(head) < size:
        raise ValueError(f"{path} is truncated: it ends inside its header; {remedy}.")
    return tuple(int.from_bytes(head[i : i + 4], "big") for i in range(4, size, 4)), rest


def read_mat(path: Path, remedy: str) -> dict[str, Any]:
    """The variables of a MATLAB file (up to version 7)."""
    from scipy.io import loadmat

    with open_file(path, remedy) as file:
        try:
            _check_packed(file)
            return loadmat(file)
        except Exception as error:  # scipy raises a dozen kinds on a damaged file
            raise ValueError(f"{path} is truncated or not a MATLAB file ({brief(error)}); {remedy}.") from error


def _check_packed(file: BufferedReader) -> None:
    """zlib.error where a packed variable of a MATLAB file has another sum than its own: scipy crashes on some."""
    order: Any = {b"IM": "little", b"MI": "big"}.get(file.read(128)[126:])
    while order and len(tag := file.read(8)) == 8:
        kind, left = (int.from_bytes(tag[n : n + 4], order) for n in (0, 4))
        if kind != _PACKED_VARIABLE:
            file.seek(left, SEEK_CUR)
            continue
        unpacker = zlib.decompressobj()
        while left and (part := file.read(min(left, 1 << 16))):
            left -= len(part)
            unpacker.decompress(part)
        if not unpacker.eof:
            raise zlib.error("a packed variable ends early")
    file.seek(0)


def read_svhn(path: Path, remedy: str) -> Arrays:
    """One .mat file of SVHN: X (32, 32, 3, N) uint8, y (N, 1) with 10 for the digit 0."""
    found = read_mat(path, remedy)
    if "X" not in found or "y" not in found or found["X"].ndim != 4 or found["X"].dtype != np.uint8:
        raise ValueError(f"{path} is no SVHN file: it lacks images X (H, W, 3, N) or labels y (N, 1); {remedy}.")
    labels = found["y"].reshape(-1).astype(np.int64)
    labels[labels == 10] = 0
    return check(Arrays(np.ascontiguousarray(found["X"].transpose(3, 2, 0, 1)), labels), path, remedy, classes=10)


def read_affnist(path: Path, remedy: str) -> Arrays:
    """One .mat file of affNIST: a struct `affNISTdata` whose `image` is 1600 x N uint8, one upright image per COLUMN.

    The fields are taken by name or, where a file has no names, by place: 2 the image, 5 the label.
    """
    found = read_mat(path, remedy).get("affNISTdata")
    if found is None:
        raise ValueError(f"{path} is no affNIST file: it has no struct affNISTdata; {remedy}.")
    record, fields = found.reshape(-1)[0], found.dtype.names or ()
    try:
        columns = record["image" if "image" in fields else 2]
        labels = record["label_int" if "label_int" in fields else 5]
    except IndexError as error:
        raise ValueError(f"{path} is no affNIST file: affNISTdata has only {len(record)} fields; {remedy}.") from error
    if columns.ndim != 2 or columns.shape[0] != 1600 or columns.dtype != np.uint8:
        raise ValueError(
            f"{path}: image is {columns.dtype} of shape {columns.shape}, not uint8 1600 x N, a column per image; "
            f"{remedy}."
        )
    images = np.ascontiguousarray(columns.T).reshape(-1, 1, 40, 40)
    return check(Arrays(images, labels.reshape(-1).astype(np.int64)), path, remedy, classes=10, every=False)


def count_affnist(path: Path, remedy: str) -> int:
    """How many images one .mat file of affNIST holds: columns of the struct's first field, six transforms of each.

    A file that does not begin with these is read.
    """
    try:
        with open_file(path, remedy) as file:
            head = file.read(1 << 16)[128:]
        if head[:1] == b"\x0f":
            head = zlib.decompressobj().decompress(head[8:], 1 << 12)
        at = [place for place in range(0, min(len(head), 1 << 12) - 16, 4) if head[place : place + 8] == _FLAGS]
        rows, columns = (
            int.from_bytes(head[at[1] + n : at[1] + n + 4], "little") for n in (24, 28)
        )  # behind its flags
    except (OSError, IndexError, zlib.error) as error:
        raise ValueError(f"{path} is truncated or no affNIST file ({brief(error)}); {remedy}.") from error
    return columns if rows == 6 else len(read_affnist(path, remedy).labels)


def read_pickle(path: Path, expected: str, remedy: str) -> dict[str, Any]:
    """The dict in one of CIFAR's pickles, which is opened only if its MD5 sum is the known one."""
    check_md5(path, expected, remedy)
    try:
        with open_file(path, remedy) as file:
            return dict(pickle.load(file, encoding="latin1"))
    except (EOFError, pickle.UnpicklingError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no CIFAR file ({brief(error)}); {remedy}.") from error


def read_cifar_batch(path: Path, expected: str, remedy: str, *, key: str = "labels", classes: int = 10) -> Arrays:
    """One pickle of CIFAR-10 or -100: data (N, 3072) uint8, channels first, and labels."""
    found = read_pickle(path, expected, remedy)
    try:
        data, labels = np.asarray(found["data"], np.uint8), np.asarray(found[key], np.int64)
        images = data.reshape(-1, 3, 32, 32)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no CIFAR-{classes} batch ({brief(error)}); {remedy}.") from error
    return check(Arrays(images, labels), path, remedy, classes=classes, every=False)


def open_file(path: Path, remedy: str) -> BufferedReader:
    """A file opened to read bytes, or FileNotFoundError in one sentence."""
    try:
        refuse_pointer(path)
        return open(path, "rb")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is missing; {remedy}.") from error


def brief(error: BaseException) -> str:
    """The first line of what an error says, to go inside a sentence."""
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
