"""What a named image set is, and how each lies on disk: readers that check every file, and counters of headers alone.

A reader takes (source, folder, remedy) and gives Parts, image files in them not decoded yet; a counter takes
(folder, remedy) and gives Counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from capsnb.data import formats
from capsnb.data.folders import Pictures, class_files, labelled
from capsnb.data.formats import Arrays, Counts, Parts, check

IDX_COUNTS = {"train": 60_000, "t10k": 10_000}


@dataclass(frozen=True, kw_only=True)
class Source:
    """How one named set is found, read, counted and fetched."""

    sentence: str  # printed beside every result on it
    folders: tuple[str, ...] = ()  # below the data folder; the first that exists is taken
    locate: Callable[[], Path | None] | None = None  # for a set that lies elsewhere
    classes: tuple[str, ...] = ()  # empty: as its files say
    md5: Mapping[str, str] = field(default_factory=dict)  # sums of its files, by name
    read: Callable[..., Parts]
    count: Callable[[Path, str], Counts] | None = None  # None: `read` decodes nothing, so what it lists is counted
    fetch: Callable[[Path], object] | str  # downloads into a folder, or says how to get the set by hand
    digest: str | None = None  # of its true content: names runs on it where it is not there
    validation_cap: int | None = 5_000  # a tenth of the training images validate, at most so many


# ------------------------------------------------------------------------- MNIST and what is stored like it


def _idx_pair(where: Path, part: str, remedy: str) -> list[Path]:
    found = []
    for stem in (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"):
        file = next((where / name for name in (f"{stem}.gz", stem) if (where / name).is_file()), None)
        if file is None:
            raise FileNotFoundError(f"{where / stem}.gz is missing; {remedy}.")
        found.append(file)
    return found


def _idx_count(where: Path, part: str, remedy: str) -> int:
    file = _idx_pair(where, part, remedy)[0]
    shape = formats.idx_shape(file, 3, remedy)
    if shape != (IDX_COUNTS[part], 28, 28):
        expected = f"{IDX_COUNTS[part]:,} of 28x28"
        raise ValueError(f"{file} holds {shape[0]:,} images of {shape[1]}x{shape[2]}, not {expected}; {remedy}.")
    return shape[0]


def read_idx_set(source: Source, where: Path, remedy: str) -> Parts:
    """Four IDX files, .gz or not."""
    for part in IDX_COUNTS:
        _idx_count(where, part, remedy)
        for file in _idx_pair(where, part, remedy):
            if file.name not in source.md5:
                raise ValueError(f"{file} is unpacked, and only the sum of {file.name}.gz is known: put that there.")
            formats.check_md5(file, source.md5[file.name], remedy)
    return read_idx_folder(where, remedy, source.classes)


def is_idx_folder(where: Path) -> bool:
    """Whether a folder holds IDX files named as MNIST's are."""
    return any((where / f"train-images-idx3-ubyte{end}").is_file() for end in ("", ".gz"))


def read_idx_folder(where: Path, remedy: str, classes: tuple[str, ...] = ()) -> Parts:
    """Four IDX files of anybody's, .gz or not; classes are numbers unless given."""
    parts: list[Arrays] = []
    for part in IDX_COUNTS:
        files = _idx_pair(where, part, remedy)
        images, labels = (formats.read_idx(file, rank, remedy) for file, rank in zip(files, (3, 1), strict=True))
        beside = parts[0].images if parts else None
        images = formats.full_range(images[:, None], files[0], remedy, beside=beside)
        arrays = Arrays(images, labels.astype(np.int64))
        parts.append(check(arrays, files[1], remedy, classes=len(classes) if classes else None))
        classes = classes or tuple(map(str, range(int(labels.max()) + 1)))
    return Parts(classes, parts[0], None, parts[1])


def count_idx_set(where: Path, remedy: str) -> Counts:
    return Counts(_idx_count(where, "train", remedy), None, _idx_count(where, "t10k", remedy))


# ----------------------------------------------------------------------------------------- the other sets


_SVHN_FILES = ("train_32x32.mat", "test_32x32.mat")


def read_svhn(source: Source, where: Path, remedy: str) -> Parts:
    for name in _SVHN_FILES:
        formats.check_md5(where / name, source.md5[name], remedy)
    train, test = (formats.read_svhn(where / name, remedy) for name in _SVHN_FILES)
    return Parts(source.classes, train, None, test)


def count_svhn(where: Path, remedy: str) -> Counts:
    from scipy.io import whosmat

    counts = []
    for file in _there(where, _SVHN_FILES, remedy):
        try:
            counts.append({name: shape for name, shape, _ in whosmat(file)}["y"][0])
        except Exception as error:  # scipy raises a dozen kinds on a damaged header
            raise ValueError(f"{file} is truncated or not a MATLAB file; {remedy}.") from error
    return Counts(counts[0], None, counts[1])


_ATTRIBUTES, _PARTITION = "list_attr_celeba", "list_eval_partition"
CIFAR100 = "cifar-100-python"
_CIFAR_BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")


def read_cifar10(source: Source, where: Path, remedy: str) -> Parts:
    *train, test = (formats.read_cifar_batch(where / name, source.md5[name], remedy) for name in _CIFAR_BATCHES)
    return Parts(source.classes, _joined(train), None, test)


def read_cifar100(source: Source, where: Path, remedy: str) -> Parts:
    """Its fine labels, a hundred; their names come from `meta`."""
    train, test = (
        formats.read_cifar_batch(where / name, source.md5[name], remedy, key="fine_labels", classes=100)
        for name in ("train", "test")
    )
    names = formats.read_pickle(where / "meta", source.md5["meta"], remedy).get("fine_label_names", ())
    if len(names) != 100:
        raise ValueError(f"{where / 'meta'} has {len(names)} names of classes, not 100; {remedy}.")
    return Parts(tuple(map(str, names)), train, None, test)


def read_emnist(source: Source, where: Path, remedy: str, split: str) -> Parts:
    """One split of EMNIST, whose images lie on their side; labels from 1 (letters) become labels from 0."""
    parts = []
    for part in ("train", "test"):
        files = _idx_pair(where, f"emnist-{split}-{part}", remedy)
        images, labels = (formats.read_idx(file, rank, remedy) for file, rank in zip(files, (3, 1), strict=True))
        labels = labels.astype(np.int64) - (split == "letters")
        arrays = Arrays(np.ascontiguousarray(images.transpose(0, 2, 1))[:, None], labels)
        parts.append(check(arrays, files[1], remedy, classes=len(source.classes)))
    return Parts(source.classes, parts[0], None, parts[1])


def count_emnist(where: Path, remedy: str, split: str) -> Counts:
    files = [_idx_pair(where, f"emnist-{split}-{part}", remedy)[0] for part in ("train", "test")]
    train, test = (formats.idx_shape(file, 3, remedy)[0] for file in files)
    return Counts(train, None, test)


def count_cifar(where: Path, remedy: str, names: tuple[str, ...] = _CIFAR_BATCHES) -> Counts:
    _there(where, names, remedy)
    return Counts(50_000, None, 10_000)  # the pickles have no header; reading checks their sums


def _celeba_table(where: Path, name: str, remedy: str) -> tuple[Path, list[str], list[list[str]]]:
    """A list of CelebA's: its file, its columns but for the images', its rows. As .txt, or as .csv with a header."""
    file = where / f"{name}.csv"
    if file.is_file() and not (where / f"{name}.txt").is_file():
        (_, *columns), *rows = [line.split(",") for line in _lines(file, remedy)] or [[""]]
        return file, columns, rows
    file = where / f"{name}.txt"
    rows = [line.split() for line in _lines(file, remedy)]
    return (file, rows[1] if len(rows) > 1 else [], rows[2:]) if name == _ATTRIBUTES else (file, ["partition"], rows)


def _lines(file: Path, remedy: str) -> list[str]:
    """The lines of a text file, without empty ones."""
    with formats.open_file(file, remedy) as opened:
        text = opened.read().decode("utf-8-sig", errors="replace")
    return [line for line in text.splitlines() if line.strip()]


def _celeba_parts(where: Path, remedy: str) -> dict[int, list[str]]:
    file, _, rows = _celeba_table(where, _PARTITION, remedy)
    wrong = next((row for row in rows if len(row) != 2 or row[1] not in ("0", "1", "2")), None)
    if wrong is not None or not rows:
        raise ValueError(f"{file} has the line {' '.join(wrong or ())!r}, not a file and 0, 1 or 2; {remedy}.")
    return {part: [row[0] for row in rows if row[1] == str(part)] for part in range(3)}


def read_celeba(source: Source, where: Path, remedy: str) -> Parts:
    """The aligned faces, central square, 64x64 unless another size is asked for; class 1 is the attribute Male."""
    attributes, columns, rows = _celeba_table(where, _ATTRIBUTES, remedy)
    if not rows or "Male" not in columns or any(len(row) != len(columns) + 1 for row in rows):
        raise ValueError(f"{attributes} is no table of attributes with the column Male; {remedy}.")
    column = columns.index("Male") + 1
    male = {row[0]: int(row[column] == "1") for row in rows}
    folder = where / "img_align_celeba"
    if (folder / folder.name).is_dir():
        folder /= folder.name
    parts = []
    for part, names in _celeba_parts(where, remedy).items():
        missing = next((name for name in names if name not in male), None)
        if missing is not None:
            raise ValueError(f"{attributes} has no line for {missing}; {remedy}.")
        if not names:
            raise ValueError(f"{where}: {_PARTITION} lists no image for part {part}; {remedy}.")
        files = tuple(folder / name for name in names)
        pictures = Pictures(files, remedy, channels=3, square=True, size=(64, 64))
        labels = np.array([male[name] for name in names], np.int64)
        parts.append(check(Arrays(pictures, labels), where, remedy, classes=2, every=part == 0))
    return Parts(source.classes, *parts)


def _tiny_val(where: Path, remedy: str) -> dict[str, list[Path]]:
    """Tiny ImageNet's val images by class: class folders, or the original's one folder with a list."""
    notes = where / "val" / "val_annotations.txt"
    if not notes.is_file():
        return class_files(_sub(where, "val", remedy), remedy, inner="images")
    found: dict[str, list[Path]] = {}
    for line in _lines(notes, remedy):
        file, tab, wnid = line.partition("\t")
        if not tab:
            raise ValueError(f"{notes} has the line {line!r}, not a file and a class with a tab between; {remedy}.")
        found.setdefault(wnid.split("\t")[0], []).append(where / "val" / "images" / file)
    return found


def _sub(where: Path, name: str, remedy: str) -> Path:
    if not (where / name).is_dir():
        raise FileNotFoundError(f"{where / name} is missing; {remedy}.")
    return where / name


def read_tiny(source: Source, where: Path, remedy: str) -> Parts:
    """Tiny ImageNet in RGB; its test images have no labels, so its val folder is the test split."""
    folder = _sub(where, "train", remedy)
    train, wnids = labelled(class_files(folder, remedy, inner="images"), folder, remedy, channels=3)
    test, _ = labelled(_tiny_val(where, remedy), where / "val", remedy, classes=wnids, channels=3)
    return Parts(_tiny_words(where, wnids), train, None, test)


def _tiny_words(where: Path, wnids: tuple[str, ...]) -> tuple[str, ...]:
    if not (where / "words.txt").is_file():
        return wnids
    lines = (line.split("\t", 1) for line in _lines(where / "words.txt", "") if "\t" in line)
    words = {wnid: text.split(",")[0].strip() for wnid, text in lines}
    return tuple(words.get(wnid, wnid) for wnid in wnids)


_AFFNIST_FOLDERS = ("", "transformed", "32x/transformed")


def _affnist_files(where: Path, part: str) -> list[Path]:
    for below in _AFFNIST_FOLDERS:
        for place in (where / below / f"{part}_batches", where / below / part):
            if place.is_dir() and (numbered := [f for f in place.glob("*.mat") if f.stem.isdigit()]):
                return sorted(numbered, key=lambda f: int(f.stem))
        if (where / below / f"{part}.mat").is_file():
            return [where / below / f"{part}.mat"]
    return []


def _affnist_test(where: Path, remedy: str) -> list[Path]:
    files = _affnist_files(where, "test")
    if not files:
        raise FileNotFoundError(f"{where} has neither test.mat nor test_batches/1.mat; {remedy}.")
    return files


def read_affnist(source: Source, where: Path, remedy: str) -> Parts:
    """Released test images (test.mat or test_batches); training ones only where training_and_validation_batches lie.

    Each training batch holds one version of every original, in one order [inferred]; the first serves, so that no
    original is both trained and validated on. Without it train and validation are empty: the papers train on MNIST
    placed at random (transforms.Translated).
    """
    test = _joined([formats.read_affnist(file, remedy) for file in _affnist_test(where, remedy)])
    training = _affnist_files(where, "training_and_validation")
    if training:
        return Parts(source.classes, formats.read_affnist(training[0], remedy), None, test)
    nothing = Arrays(np.empty((0, 1, 40, 40), np.uint8), np.empty(0, np.int64))
    return Parts(source.classes, nothing, nothing, test)


def count_affnist(where: Path, remedy: str) -> Counts:
    count = sum(formats.count_affnist(file, remedy) for file in _affnist_test(where, remedy))
    training = _affnist_files(where, "training_and_validation")
    return Counts(formats.count_affnist(training[0], remedy), None, count) if training else Counts(0, 0, count)


def _joined(batches: list[Arrays]) -> Arrays:
    return Arrays(np.concatenate([b.images for b in batches]), np.concatenate([b.labels for b in batches]))


def _there(where: Path, names: tuple[str, ...], remedy: str) -> list[Path]:
    absent = next((where / name for name in names if not (where / name).is_file()), None)
    if absent is not None:
        raise FileNotFoundError(f"{absent} is missing; {remedy}.")
    return [where / name for name in names]
