"""smallNORB (LeCun, Huang & Bottou 2004): toys before two cameras, with the viewpoint of each pair of images.

The files are those of the original distribution, .mat by name but no MATLAB files, .gz or not. Both cameras are the two
channels of an image. The splits for novel viewpoints are those of Hinton, Sabour & Frosst 2018, sec. 5.1.
"""

from __future__ import annotations

import gzip
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from capsnb.data import formats, layouts
from capsnb.data.formats import PACKED, Arrays, Counts, Parts, brief, check
from capsnb.data.pixels import by

STEMS = {"train": "smallnorb-5x46789x9x18x6x2x96x96-training", "test": "smallnorb-5x01235x9x18x6x2x96x96-testing"}
CATEGORIES = ("animal", "human", "airplane", "truck", "car")
FAMILIAR_AZIMUTHS, FAMILIAR_ELEVATIONS = (300, 320, 340, 0, 20, 40), (30, 35, 40)  # degrees
# of the numbers, by the file's first four bytes
_KINDS: dict[int, np.dtype] = {0x1E3D4C55: np.dtype("u1"), 0x1E3D4C54: np.dtype("<i4")}


class Viewpoints(NamedTuple):
    """What is known of each pair of images, int64 arrays (N,)."""

    instance: np.ndarray  # which toy of its category, 0 to 9
    elevation: np.ndarray  # of the cameras, 30 to 70 degrees
    azimuth: np.ndarray  # 0 to 340 degrees
    lighting: np.ndarray  # which of six conditions

    def familiar(self, by: str) -> np.ndarray:
        """Which were seen from where networks are trained that are tested on novel azimuths or elevations. (N,) bool"""
        known = {"azimuth": FAMILIAR_AZIMUTHS, "elevation": FAMILIAR_ELEVATIONS}
        if by not in known:
            raise ValueError(f"viewpoints by {by!r} are unknown; allowed: {', '.join(known)}")
        return np.isin(getattr(self, by), known[by])


def viewpoints(where: Path, part: str, remedy: str = "give the folder of smallNORB's files") -> Viewpoints:
    """The viewpoints of one part, "train" or "test", in the order of its images.

    Raises FileNotFoundError or ValueError, in one sentence, for a file that is missing or damaged.
    """
    file = _file(where, part, "info", remedy)
    info = read_matrix(file, remedy)
    if info.ndim != 2 or info.shape[1] != 4:
        raise ValueError(f"{file} is {by(info.shape)}, not four numbers for each image; {remedy}.")
    instance, elevation, azimuth, lighting = info.astype(np.int64).T
    return Viewpoints(instance, 30 + 5 * elevation, 10 * azimuth, lighting)


def read_smallnorb(source: layouts.Source, where: Path, remedy: str, novel: str | None = None) -> Parts:
    """Pairs of images (N, 2, 96, 96). novel: "azimuth" or "elevation", familiar ones train and others test."""
    parts = []
    for part in STEMS:
        files = [_file(where, part, kind, remedy) for kind in ("dat", "cat", "info")]
        for file in files:
            formats.check_md5(file, source.md5[file.name], remedy)
        images, labels = (read_matrix(file, remedy) for file in files[:2])
        if images.ndim != 4 or images.dtype != np.uint8 or labels.ndim != 1:
            raise ValueError(f"{files[0]} is {by(images.shape)}, not images of two cameras; {remedy}.")
        arrays = check(Arrays(images, labels.astype(np.int64)), files[1], remedy, classes=len(source.classes))
        if novel is not None:
            familiar = viewpoints(where, part, remedy).familiar(novel)
            chosen = familiar if part == "train" else ~familiar
            if len(chosen) != len(labels) or not chosen.any():
                raise ValueError(f"{files[2]} has {len(chosen):,} viewpoints, of which none serves; {remedy}.")
            arrays = Arrays(arrays.images[chosen], arrays.labels[chosen])
        parts.append(arrays)
    return Parts(source.classes, parts[0], None, parts[1])


def count_smallnorb(where: Path, remedy: str, novel: str | None = None) -> Counts:
    """How many pairs, from heads alone, or from the viewpoints."""
    if novel is None:
        train, test = (_head(_file(where, part, "dat", remedy), remedy)[0][0] for part in STEMS)
        return Counts(train, None, test)
    familiar = {part: viewpoints(where, part, remedy).familiar(novel) for part in STEMS}
    return Counts(int(familiar["train"].sum()), None, int((~familiar["test"]).sum()))


def sources() -> dict[str, layouts.Source]:
    """The set as it is, and its splits for novel viewpoints, by name."""
    sums = {
        "train-dat": ("66054832f9accfe74a0f4c36a75bc0a2", "8138a0902307b32dfa0025a36dfa45ec"),
        "train-cat": ("23c8b86101fbf0904a000b43d3ed2fd9", "fd5120d3f770ad57ebe620eb61a0b633"),
        "train-info": ("51dee1210a742582ff607dfd94e332e3", "19faee774120001fc7e17980d6960451"),
        "test-dat": ("e4ad715691ed5a3a5f138751a4ceb071", "e9920b7f7b2869a8f1a12e945b2c166c"),
        "test-cat": ("5aa791cd7e6016cf957ce9bdb93b8603", "fd5120d3f770ad57ebe620eb61a0b633"),
        "test-info": ("a9454f3864d7fd4bb3ea7fc3eb84924e", "7c5b871cc69dcadec1bf6a18141f5edc"),
    }
    md5: dict[str, str] = {}
    for name, both in sums.items():
        part, _, kind = name.partition("-")
        md5 |= {f"{STEMS[part]}-{kind}.mat{end}": each for end, each in zip((".gz", ""), both, strict=True)}
    told = "smallNORB (LeCun, Huang and Bottou 2004): five categories of toys before two cameras, the two channels"
    tested = {
        None: "",
        "azimuth": "; trained from 300 to 40 degrees of azimuth, tested on the test toys from 60 to 280",
        "elevation": "; trained from 30 to 40 degrees of elevation, tested on the test toys from 45 to 70",
    }
    return {
        "smallnorb" + (f"-{novel}" if novel else ""): layouts.Source(
            sentence=told + more,
            folders=("smallnorb", "smallNORB", "SmallNORB/raw"),
            classes=CATEGORIES,
            md5=md5,
            read=partial(read_smallnorb, novel=novel),
            count=partial(count_smallnorb, novel=novel),
            fetch="unpack https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/, six files .mat.gz,",
        )
        for novel, more in tested.items()
    }


def read_matrix(path: Path, remedy: str) -> np.ndarray:
    """The array in a file of NORB's binary matrix format (.gz or not), of bytes or whole numbers."""
    shape, kind, body = _head(path, remedy, body=True)
    return formats.as_array(body, kind, shape, path, remedy)


def _head(path: Path, remedy: str, *, body: bool = False) -> tuple[tuple[int, ...], np.dtype, bytes]:
    """Shape and kind of the numbers by a file's head, and the bytes behind it where they are asked for."""
    try:
        with formats.open_file(path, remedy) as raw, gzip.open(raw) if path.suffix == ".gz" else raw as file:
            magic, axes = np.frombuffer(file.read(8), "<u4").tolist()
            sides = np.frombuffer(file.read(4 * max(3, axes)), "<u4").tolist() if axes <= 4 else []
            rest = file.read() if body else b""
    except (*PACKED, ValueError) as error:
        if "LFS" in str(error):
            raise
        raise ValueError(f"{path} is truncated or damaged ({brief(error)}); {remedy}.") from error
    if magic not in _KINDS or not 1 <= axes <= 4 or len(sides) < axes:
        raise ValueError(
            f"{path} is no file of NORB's binary format (its head is 0x{magic:08x}, {axes} axes); {remedy}."
        )
    return tuple(sides[:axes]), _KINDS[magic], rest


def _file(where: Path, part: str, kind: str, remedy: str) -> Path:
    file = where / f"{STEMS[part]}-{kind}.mat"
    found = next((each for each in (file.with_name(f"{file.name}.gz"), file) if each.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"{file}.gz is missing; {remedy}.")
    return found
