"""How each named image set lies on disk: readers that check every file, and counters that read headers only.

A reader takes (folder, size wanted or None, remedy) and gives Parts; a counter takes (folder, remedy) and gives Counts.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from capsnb.data import folders, formats
from capsnb.data.formats import Arrays, check

Size = tuple[int, int] | None

DIGITS = tuple("0123456789")
GARMENTS = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
THINGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# As torchvision lists them. Unpacked IDX files have no listed sum: their shape is checked instead.
MD5 = {
    "MNIST/raw/train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "MNIST/raw/train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "MNIST/raw/t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "MNIST/raw/t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    "FashionMNIST/raw/train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "FashionMNIST/raw/train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "FashionMNIST/raw/t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "FashionMNIST/raw/t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
IDX_COUNTS = {"train": 60_000, "t10k": 10_000}


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


def check_sums(where: Path, remedy: str) -> None:
    """Raise ValueError if a file with a listed MD5 sum lies in `where` and has another."""
    for file in sorted(where.iterdir()):
        expected = MD5.get("/".join(file.parts[-3:]), MD5.get(file.name))
        if expected is not None:
            formats.check_md5(file, expected, remedy)


# ------------------------------------------------------------------------- MNIST and what is stored like it


def _idx_file(where: Path, stem: str, remedy: str) -> Path:
    for name in (f"{stem}.gz", stem):
        if (where / name).is_file():
            return where / name
    raise FileNotFoundError(f"{where / stem}.gz is missing; {remedy}.")


def _idx_pair(where: Path, part: str, remedy: str) -> tuple[Path, Path]:
    return (
        _idx_file(where, f"{part}-images-idx3-ubyte", remedy),
        _idx_file(where, f"{part}-labels-idx1-ubyte", remedy),
    )


def _idx_count(where: Path, part: str, remedy: str) -> int:
    file = _idx_pair(where, part, remedy)[0]
    shape = formats.idx_shape(file, 3, remedy)
    if shape != (IDX_COUNTS[part], 28, 28):
        expected = f"{IDX_COUNTS[part]:,} of 28x28"
        raise ValueError(f"{file} holds {shape[0]:,} images of {shape[1]}x{shape[2]}, not {expected}; {remedy}.")
    return shape[0]


def read_idx_set(classes: tuple[str, ...], where: Path, size: Size, remedy: str) -> Parts:
    parts = []
    for part in ("train", "t10k"):
        files = _idx_pair(where, part, remedy)
        _idx_count(where, part, remedy)
        for file in files:
            if file.suffix == ".gz":
                formats.check_md5(file, MD5["/".join(file.parts[-3:])], remedy)
        images, labels = (formats.read_idx(file, rank, remedy) for file, rank in zip(files, (3, 1), strict=True))
        arrays = Arrays(images[:, None], labels.astype(np.int64))
        parts.append(check(arrays, files[1], remedy, classes=10))
    return Parts(classes, parts[0], None, parts[1])


def count_idx_set(where: Path, remedy: str) -> Counts:
    return Counts(_idx_count(where, "train", remedy), None, _idx_count(where, "t10k", remedy))


# ----------------------------------------------------------------------------------------- the other sets


def read_svhn(where: Path, size: Size, remedy: str) -> Parts:
    files = [where / "train_32x32.mat", where / "test_32x32.mat"]
    for file in files:
        formats.check_md5(file, MD5[file.name], remedy)
    train, test = (formats.read_svhn(file, remedy) for file in files)
    return Parts(DIGITS, train, None, test)


def count_svhn(where: Path, remedy: str) -> Counts:
    from scipy.io import whosmat

    counts = []
    for file in (where / "train_32x32.mat", where / "test_32x32.mat"):
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing; {remedy}.")
        try:
            counts.append({name: shape for name, shape, _ in whosmat(file)}["y"][0])
        except Exception as error:  # scipy raises a dozen kinds on a damaged header
            raise ValueError(f"{file} is truncated or not a MATLAB file; {remedy}.") from error
    return Counts(counts[0], None, counts[1])


_CIFAR_BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")


def read_cifar10(where: Path, size: Size, remedy: str) -> Parts:
    *train, test = (formats.read_cifar_batch(where / name, MD5[name], remedy) for name in _CIFAR_BATCHES)
    joined = Arrays(np.concatenate([b.images for b in train]), np.concatenate([b.labels for b in train]))
    return Parts(THINGS, joined, None, test)


def count_cifar10(where: Path, remedy: str) -> Counts:
    for name in _CIFAR_BATCHES:
        if not (where / name).is_file():
            raise FileNotFoundError(f"{where / name} is missing; {remedy}.")
    return Counts(50_000, None, 10_000)  # the pickles have no header; reading checks their sums


def _celeba_rows(where: Path, name: str, remedy: str) -> list[list[str]]:
    try:
        return [line.split() for line in (where / name).read_text().splitlines() if line.strip()]
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{where / name} is missing; {remedy}.") from error


def _celeba_parts(where: Path, remedy: str) -> dict[int, list[str]]:
    rows = _celeba_rows(where, "list_eval_partition.txt", remedy)
    wrong = next((row for row in rows if len(row) != 2 or row[1] not in ("0", "1", "2")), None)
    if wrong is not None or not rows:
        raise ValueError(
            f"{where / 'list_eval_partition.txt'} has the line {' '.join(wrong or ())!r}, not a file and 0, 1 or 2; "
            f"{remedy}."
        )
    return {part: [row[0] for row in rows if row[1] == str(part)] for part in range(3)}


def read_celeba(where: Path, size: Size, remedy: str) -> Parts:
    """The aligned faces, central 178x178 square, resized to 64x64 unless `size` says; class 1 is the attribute Male."""
    attributes = where / "list_attr_celeba.txt"
    rows = _celeba_rows(where, attributes.name, remedy)
    if len(rows) < 3 or "Male" not in rows[1] or any(len(row) != len(rows[1]) + 1 for row in rows[2:]):
        raise ValueError(f"{attributes} is no table of attributes with the column Male; {remedy}.")
    column = rows[1].index("Male") + 1
    male = {row[0]: int(row[column] == "1") for row in rows[2:]}
    parts = []
    for part, names in _celeba_parts(where, remedy).items():
        missing = next((name for name in names if name not in male), None)
        if missing is not None:
            raise ValueError(f"{attributes} has no line for {missing}; {remedy}.")
        files = [where / "img_align_celeba" / name for name in names]
        absent = next((file for file in files if not file.is_file()), None)
        if absent is not None:
            raise FileNotFoundError(f"{absent} is missing; {remedy}.")
        if not files:
            raise ValueError(f"{where / 'list_eval_partition.txt'} lists no image for part {part}; {remedy}.")
        images = folders.read_images(files, remedy, size=size or (64, 64), channels=3, square=True)
        labels = np.array([male[name] for name in names], np.int64)
        parts.append(check(Arrays(images, labels), where, remedy, classes=2, every=part == 0))
    return Parts(("female", "male"), *parts)


def count_celeba(where: Path, remedy: str) -> Counts:
    return Counts(*(len(names) for names in _celeba_parts(where, remedy).values()))


def _tiny_val(where: Path, remedy: str) -> dict[str, list[Path]]:
    """Tiny ImageNet's val images by class: class folders, or the original's one folder with a list."""
    notes = where / "val" / "val_annotations.txt"
    if not notes.is_file():
        return folders.class_files(_sub(where, "val", remedy), remedy, inner="images")
    found: dict[str, list[Path]] = {}
    for line in notes.read_text().splitlines():
        file, wnid = line.split("\t")[:2]
        found.setdefault(wnid, []).append(where / "val" / "images" / file)
    return found


def _sub(where: Path, name: str, remedy: str) -> Path:
    if not (where / name).is_dir():
        raise FileNotFoundError(f"{where / name} is missing; {remedy}.")
    return where / name


def read_tiny(where: Path, size: Size, remedy: str) -> Parts:
    """Tiny ImageNet in RGB; its test images have no labels, so its val folder is the test split."""
    train, wnids = folders.read_tree(_sub(where, "train", remedy), remedy, size=size, channels=3, inner="images")
    held = _tiny_val(where, remedy)
    unknown = next((wnid for wnid in held if wnid not in wnids), None)
    if unknown is not None:
        raise ValueError(f"{where / 'val'} has the class {unknown}, which train lacks; {remedy}.")
    labels = np.repeat([wnids.index(w) for w in held], [len(files) for files in held.values()]).astype(np.int64)
    images = folders.read_images([f for files in held.values() for f in files], remedy, size=size, channels=3)
    test = check(Arrays(images, labels), where / "val", remedy, classes=len(wnids), every=False)
    return Parts(_tiny_words(where, wnids), train, None, test)


def _tiny_words(where: Path, wnids: tuple[str, ...]) -> tuple[str, ...]:
    if not (where / "words.txt").is_file():
        return wnids
    lines = (line.split("\t", 1) for line in (where / "words.txt").read_text().splitlines() if "\t" in line)
    words = {wnid: text.split(",")[0].strip() for wnid, text in lines}
    return tuple(words.get(wnid, wnid) for wnid in wnids)


def count_tiny(where: Path, remedy: str) -> Counts:
    train = folders.class_files(_sub(where, "train", remedy), remedy, inner="images")
    return Counts(sum(map(len, train.values())), None, sum(map(len, _tiny_val(where, remedy).values())))


_AFFNIST_FOLDERS = ("", "transformed", "32x/transformed")


def _affnist_files(where: Path, part: str) -> list[Path]:
    for below in _AFFNIST_FOLDERS:
        for place in (where / below / f"{part}_batches", where / below / part):
            if place.is_dir() and (numbered := [f for f in place.glob("*.mat") if f.stem.isdigit()]):
                return sorted(numbered, key=lambda f: int(f.stem))
        if (where / below / f"{part}.mat").is_file():
            return [where / below / f"{part}.mat"]
    return []


def read_affnist(where: Path, size: Size, remedy: str) -> Parts:
    """Released test images (test.mat or test_batches); training ones only where training_and_validation_batches lie.

    Each training batch holds one version of every original, in one order [inferred]; the first serves, so that no
    original is both trained and validated on. Without it train and validation are empty: the papers train on MNIST
    placed at random (synthesis.Translated).
    """
    files = _affnist_files(where, "test")
    if not files:
        raise FileNotFoundError(f"{where} has neither test.mat nor test_batches/1.mat; {remedy}.")
    batches = [formats.read_affnist(file, remedy) for file in files]
    test = Arrays(np.concatenate([b.images for b in batches]), np.concatenate([b.labels for b in batches]))
    training = _affnist_files(where, "training_and_validation")
    if training:
        return Parts(DIGITS, formats.read_affnist(training[0], remedy), None, test)
    nothing = Arrays(np.empty((0, 1, 40, 40), np.uint8), np.empty(0, np.int64))
    return Parts(DIGITS, nothing, nothing, test)


def count_affnist(where: Path, remedy: str) -> Counts:
    test = _affnist_files(where, "test")
    if not test:
        raise FileNotFoundError(f"{where} has neither test.mat nor test_batches/1.mat; {remedy}.")
    training = _affnist_files(where, "training_and_validation")
    count = 320_000 if test[0].name == "test.mat" else 10_000 * len(test)  # as released; the struct has no header
    return Counts(60_000, None, count) if training else Counts(0, 0, count)
