"""Image sets: real digits from the embedded sample; every other layout from small files made here, whole and broken."""

import ast
import gzip
import hashlib
import pickle
import sys
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from capsnb import data, installation
from capsnb.data import catalogue, identity, layouts, sample, sources
from capsnb.data.folders import Pictures

FOLDERS = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch, tmp_path_factory):
    monkeypatch.delenv("CAPSNB_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def error(kind, *words):
    """pytest.raises for one sentence that has all the words."""
    return pytest.raises(kind, match="(?s)" + "".join(f"(?=.*(?:{word}))" for word in words))


def digits(count, seed=0, shape=(28, 28)):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *shape), dtype=np.uint8), np.arange(count) % 10


def idx(array):
    head = bytes((0, 0, 8, array.ndim)) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return head + array.astype(np.uint8).tobytes()


@pytest.fixture(params=["mnist", "fashion-mnist"])
def idx_set(request, tmp_path, monkeypatch):
    """A complete set of .gz IDX files, 200 + 50 images, and the folder they are in; counts and sums are adapted."""
    raw = tmp_path / FOLDERS[request.param] / "raw"
    raw.mkdir(parents=True)
    monkeypatch.setattr(layouts, "IDX_COUNTS", {"train": 200, "t10k": 50})
    own_sums(monkeypatch, request.param)
    for part, count in layouts.IDX_COUNTS.items():
        images, labels = digits(count, seed=count)
        write(raw / f"{part}-images-idx3-ubyte.gz", gzip.compress(idx(images)))
        write(raw / f"{part}-labels-idx1-ubyte.gz", gzip.compress(idx(labels)))
    return request.param, raw


def own_sums(monkeypatch, name):
    """Let `write` change the sums that a set's files must have, until the test is over."""
    source = catalogue.SOURCES[name]
    monkeypatch.setitem(catalogue.SOURCES, name, replace(source, md5=dict(source.md5)))


def write(file, content):
    """Write a file and take its sum as the right one."""
    file.write_bytes(content)
    below = {folder: source for source in catalogue.SOURCES.values() for folder in source.folders}
    source = next(below[folder] for folder in below if file.parent.as_posix().endswith(f"/{folder}"))
    assert file.name in source.md5
    source.md5[file.name] = hashlib.md5(content).hexdigest()


# ------------------------------------------------------------------------------------------- splits and sets


def test_a_split_gives_batches_in_order_and_by_index():
    split = data.load("mnist-sample").test
    index = torch.tensor([5, 0, 999])
    batch = split.batch(index)
    assert batch.images.dtype == torch.uint8 and batch.labels.dtype == torch.int64 and batch.targets is None
    assert torch.equal(batch.images, split.images[index]) and torch.equal(batch.labels, split.labels[index])
    batches = list(split.batches(300))
    assert [len(b.labels) for b in batches] == [300, 300, 300, 100]
    assert torch.equal(torch.cat([b.images for b in batches]), split.images)
    assert len(split.select(split.labels == 3)) == 100
    assert split.image_shape == (1, 28, 28) and len(split) == 1000
    with error(ValueError, "batch of 0 images"):
        next(split.batches(0))


def test_a_split_refuses_tensors_that_do_not_fit():
    images, labels = torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64)
    for wrong in (images.float(), images[:, 0]):
        with error(ValueError, "images", "not uint8"):
            data.Split(wrong, labels)
    for wrong in (labels[:3], labels.int()):
        with error(ValueError, "labels", "not int64"):
            data.Split(images, wrong)


def test_the_embedded_sample_is_real_balanced_and_says_that_it_is_not_mnists_test_set():
    found = data.load("mnist-sample")
    assert [len(s) for s in (found.train, found.validation, found.test)] == [3500, 500, 1000]
    for split, each in ((found.train, 350), (found.validation, 50), (found.test, 100)):
        assert split.labels.bincount().tolist() == [each] * 10
    assert "TRAINING" in found.source and "not MNIST's test set" in found.source
    assert repr(found) == "ImageSet(mnist-sample: 3,500 + 500 + 1,000 images 1x28x28, 10 classes)"
    every = torch.cat([found.train.images, found.validation.images, found.test.images]).flatten(1)
    assert len(every.unique(dim=0)) == 5000  # no image in two splits
    assert 0.12 < every.float().mean() / 255 < 0.14  # digits, not noise
    assert len(found.train.labels[:50].unique()) == 10  # the file is sorted by class, the split is not


def test_the_sample_is_the_same_in_every_call_and_its_test_split_for_every_seed():
    first, again, other = data.load("mnist-sample"), data.load("mnist-sample"), data.load("mnist-sample", seed=1)
    assert torch.equal(first.train.images, again.train.images)
    assert torch.equal(first.test.images, other.test.images)
    assert not torch.equal(first.validation.images, other.validation.images)
    checksum = hashlib.sha256(first.test.images.numpy().tobytes() + first.test.labels.numpy().tobytes()).hexdigest()
    assert checksum.startswith(TEST_SPLIT), checksum


TEST_SPLIT = "f057b0175923f899"  # of the 1,000 test digits: a change would make recorded results incomparable


def test_the_sample_is_parsed_once_and_kept_whole_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = installation.user_cache() / "mnist-sample.npz"
    first = data.load("mnist-sample")
    assert [f.name for f in cache.parent.iterdir()] == [cache.name]  # and no temporary file
    sample._parsed_rows.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(np, "loadtxt", None)  # nothing is parsed again
        assert torch.equal(data.load("mnist-sample").train.images, first.train.images)
    cache.write_bytes(cache.read_bytes()[:1000])
    assert torch.equal(data.load("mnist-sample").train.images, first.train.images)
    with np.load(cache) as archive:  # written anew
        assert archive["rows"].shape == (5000, 785)


def test_a_folder_that_cannot_be_written_costs_nothing_but_the_cache(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError("read-only")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(Path, "write_bytes", refuse)
    assert len(data.load("mnist-sample").train) == 3500
    assert not list(installation.user_cache().iterdir())
    missing = tmp_path / "nowhere"
    assert len(data.load("mnist-sample", data_dir=missing).train) == 3500
    assert not missing.exists()  # a mistyped CAPSNB_DATA is not created


def test_importing_needs_torch_and_numpy_alone():
    package = Path(data.__file__).parents[1]
    files = [*package.glob("data/**/*.py")]
    outside = set()
    for node in (node for file in files for node in ast.parse(file.read_text()).body):
        if isinstance(node, ast.Import):
            outside |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            outside.add(node.module.split(".")[0])
    assert len(files) >= 10
    assert outside - set(sys.stdlib_module_names) == {"capsnb", "torch", "numpy"}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60))
def test_every_prefix_of_the_balanced_order_is_proportional(labels):
    labels = np.array(labels)
    order = data.balanced_order(labels)
    assert sorted(order) == list(range(len(labels)))
    classes, counts = np.unique(labels, return_counts=True)
    slack = 1 if len(set(counts)) == 1 else 1 + len(classes) / 2  # every class is rounded, and the total with them
    for n in range(1, len(labels) + 1):
        held = (labels[order[:n]][:, None] == classes).sum(0)
        assert (np.abs(held - n * counts / len(labels)) <= slack).all()


# ------------------------------------------------------------------------------------ MNIST and Fashion-MNIST


def test_idx_files_are_read_packed_or_not(idx_set, tmp_path):
    name, raw = idx_set
    found = data.load(name, data_dir=tmp_path)
    assert [len(s) for s in (found.train, found.validation, found.test)] == [180, 20, 50]
    assert found.validation.labels.bincount().tolist() == [2] * 10
    images, labels = digits(50, seed=50)
    assert torch.equal(found.test.images[:, 0], torch.from_numpy(images))
    assert torch.equal(found.test.labels, torch.from_numpy(labels))
    unpack(raw)
    unpacked = data.load(name, data_dir=tmp_path)
    assert torch.equal(unpacked.train.images, found.train.images)


def unpack(raw):
    """IDX files without .gz, whose sums are then right."""
    for packed in list(raw.iterdir()):
        write(packed.with_suffix(""), gzip.decompress(packed.read_bytes()))
        packed.unlink()


def test_other_files_unpacked_under_a_known_name_are_refused(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in {"train": 60_000, "t10k": 10_000}.items():
        labels = np.arange(count) % 10
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(np.zeros((count, 28, 28), np.uint8)))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    with error(ValueError, "train-images-idx3-ubyte is truncated, damaged or another file", "MD5"):
        data.load("mnist", data_dir=tmp_path)


def test_how_many_images_validate_is_given_or_a_tenth(idx_set, tmp_path):
    name, _ = idx_set
    found = data.load(name, data_dir=tmp_path, validation=55)
    assert (len(found.train), len(found.validation)) == (145, 55)
    assert set(found.validation.labels.bincount().tolist()) <= {5, 6}
    none = data.load(name, data_dir=tmp_path, validation=0)
    assert (len(none.train), len(none.validation)) == (200, 0)
    with error(ValueError, "200 images to train on", "200 of them cannot be held out"):
        data.load(name, data_dir=tmp_path, validation=200)
    with error(ValueError, "validation=-1", "negative"):
        data.load(name, data_dir=tmp_path, validation=-1)


def test_the_folder_comes_from_the_environment(idx_set, tmp_path, monkeypatch):
    monkeypatch.setenv("CAPSNB_DATA", str(tmp_path))
    assert data.data_dir() == tmp_path
    assert len(data.load(idx_set[0]).test) == 50


IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


@pytest.mark.parametrize(
    "file, change, kind, words",
    [
        (IMAGES, lambda b: None, FileNotFoundError, ["is missing"]),
        (IMAGES, lambda b: b[:3000], ValueError, ["truncated"]),
        (IMAGES, lambda b: b"", ValueError, ["truncated"]),
        (IMAGES, lambda b: b"<html>not found</html>", ValueError, ["truncated or damaged"]),
        (
            IMAGES,
            lambda b: repack(b, lambda d: b"\0\0\10\1" + d[4:]),
            ValueError,
            ["magic number 0x00000801", "00000803"],
        ),
        (IMAGES, lambda b: repack(b, lambda d: d[:9]), ValueError, ["ends inside its header"]),
        (IMAGES, lambda b: repack(b, lambda d: d[:-5]), ValueError, ["is truncated", "156,795 bytes", "156,800"]),
        (IMAGES, lambda b: repack(b, lambda d: d + b"x"), ValueError, ["is too long"]),
        (IMAGES, lambda b: gzip.compress(idx(digits(60)[0])), ValueError, ["holds 60 images", "not 200 of 28x28"]),
        (LABELS, lambda b: gzip.compress(idx(digits(60)[1])), ValueError, ["200 images but 60 labels"]),
        (LABELS, lambda b: repack(b, lambda d: d[:-1] + b"\x0b"), ValueError, ["label 11 of image 199", "0 to 9"]),
        (LABELS, lambda b: gzip.compress(idx(np.arange(200) % 9)), ValueError, ["class 9 of 10 has no image"]),
    ],
)
def test_a_broken_idx_file_is_one_sentence(idx_set, tmp_path, file, change, kind, words):
    name, raw = idx_set
    content = change((raw / file).read_bytes())
    (raw / file).unlink()
    if content is not None:
        write(raw / file, content)
    with error(kind, file, f"capsnb data fetch {name}", *words) as raised:
        data.load(name, data_dir=tmp_path)
    assert "\n" not in str(raised.value)


def repack(content, change):
    return gzip.compress(change(gzip.decompress(content)))


def test_another_file_under_the_right_name_is_caught_by_its_sum(idx_set, tmp_path):
    name, raw = idx_set
    (raw / IMAGES).write_bytes(gzip.compress(idx(digits(200, seed=5)[0])))
    with error(ValueError, IMAGES, "MD5 sum", "capsnb data fetch"):
        data.load(name, data_dir=tmp_path)


# --------------------------------------------------------------------------------------------- other named sets


@pytest.fixture
def svhn(tmp_path, monkeypatch):
    own_sums(monkeypatch, "svhn")
    (tmp_path / "svhn").mkdir()
    for name, count in (("train", 40), ("test", 20)):
        file = tmp_path / "svhn" / f"{name}_32x32.mat"
        images = np.zeros((32, 32, 3, count), np.uint8)
        images[3, 5, 2, :] = np.arange(count)
        scipy.io.savemat(file, {"X": images, "y": (np.arange(count) % 10 + 1)[:, None]})
        write(file, file.read_bytes())
    return tmp_path / "svhn"


def test_svhn_is_read_with_10_for_0_and_channels_first(svhn, tmp_path):
    found = data.load("svhn", data_dir=tmp_path)
    assert [len(s) for s in (found.train, found.validation, found.test)] == [36, 4, 20]
    assert found.test.images[7, 2, 3, 5] == 7 and found.test.images[7].sum() == 7
    assert found.test.labels[:10].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    row = next(r for r in data.available(tmp_path) if r["name"] == "svhn")
    assert (row["train"], row["validation"], row["test"]) == (36, 4, 20)


def test_a_broken_svhn_file_is_one_sentence(svhn, tmp_path):
    file = svhn / "train_32x32.mat"
    whole = file.read_bytes()
    file.write_bytes(whole[:500])
    with error(ValueError, "train_32x32.mat", "MD5", "capsnb data fetch svhn"):
        data.load("svhn", data_dir=tmp_path)
    write(file, whole[:500])
    with error(ValueError, "train_32x32.mat", "truncated or not a MATLAB file"):
        data.load("svhn", data_dir=tmp_path)
    scipy.io.savemat(file, {"Z": np.zeros(3)})
    write(file, file.read_bytes())
    with error(ValueError, "no SVHN file"):
        data.load("svhn", data_dir=tmp_path)
    file.unlink()
    with error(FileNotFoundError, "train_32x32.mat is missing"):
        data.load("svhn", data_dir=tmp_path)
    note = next(r for r in data.available(tmp_path) if r["name"] == "svhn")["note"]
    assert "train_32x32.mat is missing" in note


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    own_sums(monkeypatch, "cifar10")
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for n, name in enumerate(layouts._CIFAR_BATCHES):
        rows = np.full((20, 3072), n, np.uint8)
        rows[:, 0] = 9
        write(folder / name, pickle.dumps({"data": rows, "labels": list(range(10)) * 2}))
    return folder


def test_cifar10_pickles_are_read_only_with_the_known_sum(cifar, tmp_path):
    found = data.load("cifar10", data_dir=tmp_path)
    assert [len(s) for s in (found.train, found.validation, found.test)] == [90, 10, 20]
    assert found.classes[3] == "cat" and found.image_shape == (3, 32, 32) and (found.test.images[:, 1:] == 5).all()
    (cifar / "data_batch_2").write_bytes(pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [0]}))
    with error(ValueError, "data_batch_2", "MD5"):  # an unknown pickle could run anything
        data.load("cifar10", data_dir=tmp_path)
    write(cifar / "data_batch_2", pickle.dumps({"labels": [0]}))
    with error(ValueError, "data_batch_2", "no CIFAR-10 batch"):
        data.load("cifar10", data_dir=tmp_path)
    (cifar / "data_batch_2").unlink()
    with error(FileNotFoundError, "data_batch_2", "missing", "capsnb data fetch cifar10"):
        data.load("cifar10", data_dir=tmp_path)


@pytest.fixture
def celeba(tmp_path):
    folder = tmp_path / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{n:06d}.jpg" for n in range(1, 13)]
    for n, name in enumerate(names):
        image = Image.new("RGB", (178, 218), (20 * n, 0, 0))
        image.paste((0, 90, 0), (40, 60, 80, 120))
        image.save(folder / "img_align_celeba" / name)
    rows = [f"{name} -1 {1 if n % 3 == 0 else -1}" for n, name in enumerate(names)]
    (folder / "list_attr_celeba.txt").write_text("\n".join(["12", "Young Male", *rows]) + "\n")
    (folder / "list_eval_partition.txt").write_text(
        "".join(f"{name} {0 if n < 6 else 1 if n < 9 else 2}\n" for n, name in enumerate(names))
    )
    return folder


def test_celeba_keeps_its_own_partition_and_is_male_or_female(celeba, tmp_path):
    found = data.load("celeba", data_dir=tmp_path)
    assert [len(s) for s in (found.train, found.validation, found.test)] == [6, 3, 3]
    assert found.classes == ("female", "male") and found.image_shape == (3, 64, 64)
    assert found.train.labels.tolist() == [1, 0, 0, 1, 0, 0]
    assert data.load("celeba", data_dir=tmp_path, size=32).image_shape == (3, 32, 32)
    with error(ValueError, "3 validation images of its own", "validation=2"):
        data.load("celeba", data_dir=tmp_path, validation=2)


@pytest.mark.parametrize(
    "file, content, words",
    [
        ("list_attr_celeba.txt", "12\nYoung\n000001.jpg -1\n", ["column Male"]),
        ("list_attr_celeba.txt", "12\nYoung Male\n000001.jpg -1 1\n", ["no line for 000002.jpg"]),
        ("list_attr_celeba.txt", None, ["is missing"]),
        ("list_eval_partition.txt", "000001.jpg 7\n", ["line '000001.jpg 7'"]),
        ("img_align_celeba/000004.jpg", "not an image", ["unreadable"]),
        ("img_align_celeba/000004.jpg", None, ["is missing"]),
    ],
)
def test_a_broken_celeba_is_one_sentence(celeba, tmp_path, file, content, words):
    (celeba / file).unlink()
    if content is not None:
        (celeba / file).write_text(content)
    with error((ValueError, FileNotFoundError), file.split("/")[-1], "capsnb data fetch celeba", *words):
        data.load("celeba", data_dir=tmp_path)


def affnist(file, count, *, named=True, images=None, labels=None):
    """An affNIST .mat file: image n has one bright pixel at row n, column 3; a struct of six fields."""
    columns = np.zeros((40, 40, count), np.uint8)
    columns[np.arange(count) % 40, 3, np.arange(count)] = 200
    names = [
        "affine_transform_matrix",
        "human_readable_transform",
        "image",
        "original_id",
        "label_one_of_n",
        "label_int",
    ]
    fields = [
        np.zeros((6, count)),
        np.zeros((6, count)),
        columns.reshape(1600, count) if images is None else images,
        np.arange(count, dtype=np.uint16)[None],
        np.zeros((10, count), np.uint8),
        (np.arange(count, dtype=np.uint8) % 10 if labels is None else labels)[None],
    ]
    keys = names if named else [f"field{n}" for n in range(6)]
    file.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(file, {"affNISTdata": dict(zip(keys, fields, strict=True))}, do_compression=True)


@pytest.mark.parametrize("named", [True, False])
def test_affnist_columns_become_upright_images(tmp_path, named):
    affnist(tmp_path / "affnist" / "test.mat", 50, named=named)
    found = data.load("affnist", data_dir=tmp_path)
    assert [len(s) for s in (found.train, found.validation, found.test)] == [0, 0, 50]
    assert found.image_shape == (1, 40, 40)
    assert found.test.images[17, 0].nonzero().tolist() == [[17, 3]]
    assert found.test.labels[17] == 7


def test_affnist_batches_are_joined_in_number_order_and_training_ones_used(tmp_path):
    below = tmp_path / "affnist" / "32x" / "transformed"
    for n, label in ((1, 1), (2, 2), (10, 3)):
        affnist(below / "test_batches" / f"{n}.mat", 5, labels=np.full(5, label, np.uint8))
    affnist(below / "training_and_validation_batches" / "1.mat", 100)
    found = data.load("affnist", data_dir=tmp_path)
    assert found.test.labels.tolist() == [1] * 5 + [2] * 5 + [3] * 5
    assert (len(found.train), len(found.validation)) == (90, 10)


def test_a_broken_affnist_is_one_sentence(tmp_path):
    file = tmp_path / "affnist" / "test.mat"
    file.parent.mkdir()
    with error(FileNotFoundError, "neither test.mat", "test.mat.zip"):
        data.load("affnist", data_dir=tmp_path)
    affnist(file, 5, images=np.zeros((784, 5), np.uint8))
    with error(ValueError, "test.mat", "1600 x N"):
        data.load("affnist", data_dir=tmp_path)
    affnist(file, 5, images=np.zeros((1600, 4), np.uint8))
    with error(ValueError, "4 images but 5 labels"):
        data.load("affnist", data_dir=tmp_path)
    affnist(file, 5, labels=np.full(5, 12, np.uint8))
    with error(ValueError, "label 12 of image 0", "0 to 9"):
        data.load("affnist", data_dir=tmp_path)
    affnist(file, 5)
    file.write_bytes(file.read_bytes()[:-1] + b"x")  # another sum: scipy would crash on some such files
    with error(ValueError, "test.mat is truncated or not a MATLAB file", "incorrect data check"):
        data.load("affnist", data_dir=tmp_path)
    scipy.io.savemat(file, {"other": 1})
    with error(ValueError, "no struct affNISTdata"):
        data.load("affnist", data_dir=tmp_path)
    scipy.io.savemat(file, {"affNISTdata": {"a": 1}})
    with error(ValueError, "only 1 fields"):
        data.load("affnist", data_dir=tmp_path)
    file.write_bytes(file.read_bytes()[:100])
    with error(ValueError, "truncated or not a MATLAB file"):
        data.load("affnist", data_dir=tmp_path)


def picture(file, value, *, size=(8, 8), mode="RGB"):
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new(mode, size, value if mode != "RGB" or isinstance(value, tuple) else (value, 0, 0))
    image.paste(0 if value else 9, (0, 0, 1, 1))  # a set of even colours has no shape to learn
    image.save(file)


@pytest.fixture
def tiny(tmp_path):
    """Tiny ImageNet as packed by its authors: images below each class, val in one folder with a list."""
    root = tmp_path / "tiny-imagenet-200"
    for c, wnid in enumerate(("n01", "n02")):
        for n in range(10):
            picture(root / "train" / wnid / "images" / f"{wnid}_{n}.JPEG", 100 * c + n)
    picture(root / "val" / "images" / "val_0.JPEG", 0)
    picture(root / "val" / "images" / "val_1.JPEG", 90, mode="L")  # some are grey
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn02\t0\t0\t1\t1\nval_1.JPEG\tn01\t0\t0\t1\t1\n")
    (root / "words.txt").write_text("n01\tbullfrog, Rana catesbeiana\nn02\tcat\n")
    return root


def test_tiny_imagenet_in_both_layouts(tiny, tmp_path):
    found = data.load("tiny-imagenet", data_dir=tmp_path)
    assert [len(s) for s in (found.train, found.validation, found.test)] == [18, 2, 2]
    assert found.classes == ("bullfrog", "cat") and found.image_shape == (3, 8, 8)
    assert sorted(found.test.labels.tolist()) == [0, 1]
    row = next(r for r in data.available(tmp_path) if r["name"] == "tiny-imagenet")
    assert (row["train"], row["validation"], row["test"]) == (18, 2, 2)
    (tiny / "val" / "val_annotations.txt").unlink()
    for wnid, name in (("n02", "val_0.JPEG"), ("n01", "val_1.JPEG")):
        (tiny / "val" / wnid).mkdir()
        (tiny / "val" / "images" / name).rename(tiny / "val" / wnid / name)
    (tiny / "val" / "images").rmdir()
    tiny.rename(tmp_path / "tiny-imagenet-20")
    assert data.load("tiny-imagenet", data_dir=tmp_path).test.labels.tolist() == [0, 1]


def test_a_named_set_may_lie_as_npz(tmp_path):
    (tmp_path / "cifar10").mkdir()
    for name, count in (("train", 100), ("test", 20)):
        images, labels = digits(count, shape=(32, 32, 3))
        np.savez(tmp_path / "cifar10" / f"{name}.npz", images=images, labels=labels)
    found = data.load("cifar10", data_dir=tmp_path)
    assert [len(s) for s in (found.train, found.validation, found.test)] == [90, 10, 20]
    assert found.classes[0] == "airplane" and "nothing checks" in found.source
    assert torch.equal(found.test.images, torch.from_numpy(images).permute(0, 3, 1, 2))
    row = next(r for r in data.available(tmp_path) if r["name"] == "cifar10")
    assert (row["train"], row["validation"], row["test"]) == (90, 10, 20)
    (tmp_path / "cifar10" / "test.npz").unlink()
    with error(FileNotFoundError, "test.npz is missing"):
        data.load("cifar10", data_dir=tmp_path)


# ---------------------------------------------------------------------------------------- missing and fetched


@pytest.mark.parametrize("name", [n for n in data.names() if n != "mnist-sample"])
def test_a_missing_set_names_the_folder_and_the_remedy(tmp_path, name):
    with error(FileNotFoundError, name, str(tmp_path), "CAPSNB_DATA", "capsnb data fetch|unpack http"):
        data.load(name, data_dir=tmp_path)
    with error(FileNotFoundError, "nowhere, which does not exist"):
        data.load(name, data_dir=tmp_path / "nowhere")
    row = next(r for r in data.available(tmp_path) if r["name"] == name)
    assert row["where"] is None and row["train"] is None and row["note"].startswith("not there; ")


def test_an_unknown_name_lists_the_known_ones(tmp_path):
    with error(FileNotFoundError, "'mnits'", "mnist-sample, mnist, fashion-mnist", "class folder|folder with"):
        data.load("mnits")
    with error(ValueError, "empty"):
        data.load("")
    with error(ValueError, "'mnits' is not a set that can be fetched", "mnist-sample"):
        data.fetch("mnits", tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with error(ValueError, "notes.txt is not an image set"):
        data.load(str(tmp_path / "notes.txt"))


def test_the_embedded_sample_is_always_available(tmp_path):
    row = data.available(tmp_path)[0]
    assert (row["name"], row["train"], row["validation"], row["test"]) == ("mnist-sample", 3500, 500, 1000)


def test_counts_come_from_headers(idx_set, tmp_path, monkeypatch):
    monkeypatch.setattr(sources.formats, "read_idx", None)  # nothing is read whole
    row = next(r for r in data.available(tmp_path) if r["name"] == idx_set[0])
    assert (row["train"], row["validation"], row["test"]) == (180, 20, 50)


class Downloads:
    """Stands in for torchvision.datasets: writes what it is told to, or fails halfway."""

    def __init__(self, files, fails=False):
        self.files, self.fails, self.calls = files, fails, 0

    def __call__(self, folder, download, **options):
        self.calls += 1
        for name, content in self.files.items():
            target = folder / "MNIST" / "raw" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            if self.fails:
                raise RuntimeError("Error downloading x\nand more")


@pytest.fixture
def mirror(idx_set, tmp_path, monkeypatch):
    """The files of a whole MNIST and an empty folder to fetch them into."""
    raw = idx_set[1]
    files = {file.name: file.read_bytes() for file in raw.iterdir()}
    folder = tmp_path / "fetched"
    return files, folder


def use(monkeypatch, downloads):
    torchvision = types.ModuleType("torchvision")  # the real one takes seconds to import
    torchvision.datasets = types.SimpleNamespace(MNIST=downloads)
    monkeypatch.setitem(sys.modules, "torchvision", torchvision)
    return downloads


only_mnist = pytest.mark.parametrize("idx_set", ["mnist"], indirect=True)


@only_mnist
def test_a_download_is_complete_and_happens_only_when_asked(mirror, monkeypatch):
    files, folder = mirror
    downloads = use(monkeypatch, Downloads(files))
    with pytest.raises(FileNotFoundError):
        data.load("mnist", data_dir=folder)
    assert downloads.calls == 0 and not folder.exists()
    assert len(data.load("mnist", data_dir=folder, download=True).test) == 50
    assert [f.name for f in folder.iterdir()] == ["MNIST"]  # and no temporary folder
    assert data.fetch("mnist", folder) == folder / "MNIST" / "raw" and downloads.calls == 1  # whole: left alone


@only_mnist
def test_a_download_that_fails_leaves_nothing(mirror, monkeypatch):
    files, folder = mirror
    use(monkeypatch, Downloads(files, fails=True))
    with error(FileNotFoundError, "mnist could not be downloaded", "Error downloading x\\)", "network") as raised:
        data.fetch("mnist", folder)
    assert "\n" not in str(raised.value) and list(folder.iterdir()) == []


@only_mnist
def test_fetching_replaces_a_damaged_file(mirror, monkeypatch):
    files, folder = mirror
    use(monkeypatch, Downloads(files))
    data.fetch("mnist", folder)
    (folder / "MNIST" / "raw" / IMAGES).write_bytes(b"damaged")
    data.fetch("mnist", folder)
    assert len(data.load("mnist", data_dir=folder).train) == 180


def test_what_cannot_be_fetched_says_how_to_get_it(tmp_path, monkeypatch):
    with error(ValueError, "affnist is not fetched", "test.mat.zip", str(tmp_path / "affnist")):
        data.fetch("affnist", tmp_path)
    (tmp_path / "file").write_text("")
    with error(ValueError, "cannot be written", "CAPSNB_DATA"):
        data.fetch("mnist", tmp_path / "file")
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with error(ValueError, "torchvision does not fit this torch", "pip install"):
        data.fetch("mnist", tmp_path)


# ------------------------------------------------------------------------------------------- bring your own


def own(root, *, classes=("cat", "dog"), count=20, **options):
    for c, name in enumerate(classes):
        for n in range(count):
            picture(root / name / f"{n}.png", 100 * c + n, **options)


def test_plain_class_folders_are_split_by_class(tmp_path):
    own(tmp_path / "pets")
    (tmp_path / "pets" / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "pets" / ".hidden").mkdir()
    with pytest.warns(UserWarning, match=r"1 file \(cat/notes.txt\) is left out"):
        found = data.load(str(tmp_path / "pets"))
    assert (found.name, found.classes, found.image_shape) == ("pets", ("cat", "dog"), (3, 8, 8))
    assert [len(s) for s in (found.train, found.validation, found.test)] == [28, 4, 8]
    assert found.test.labels.bincount().tolist() == [4, 4]
    assert str(tmp_path) not in found.source
    red = found.train.images[:, 0, 1, 1]
    assert torch.equal(red >= 100, found.train.labels == 1)


def test_grey_images_keep_one_channel_and_any_colour_makes_three(tmp_path):
    own(tmp_path / "pets", mode="L")
    assert data.load(str(tmp_path / "pets")).image_shape == (1, 8, 8)
    picture(tmp_path / "pets" / "cat" / "colour.png", (1, 2, 3))
    assert data.load(str(tmp_path / "pets")).image_shape == (3, 8, 8)


def test_photographs_stand_upright_and_what_is_transparent_is_black(tmp_path):
    own(tmp_path / "pets", mode="RGB")
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned clockwise
    left_bright = np.zeros((8, 12, 3), np.uint8)
    left_bright[:, :6] = 250
    file = tmp_path / "photograph.jpg"
    Image.fromarray(left_bright).save(file, exif=turned, quality=100, subsampling=0)
    clear = np.full((12, 8, 4), 200, np.uint8)
    clear[:6, :, 3], clear[6:, :, 3] = 255, 0
    Image.fromarray(clear).save(tmp_path / "sticker.png")
    Image.fromarray(clear[..., 2:]).save(tmp_path / "grey.png")
    files = (file, tmp_path / "sticker.png", tmp_path / "grey.png")
    for images in (Pictures(files, "").read(), Pictures(files[1:], "").read(channels=1)):
        assert images.shape[2:] == (12, 8), "the photograph is 12 pixels wide in its file and high when shown"
        assert (images[:, :, :5] > 190).all() and (images[:, :, 7:] < 10).all()
    assert (Pictures(files[2:], "").read()[0, 0, :, 0] == [200] * 6 + [0] * 6).all()


def test_train_and_test_folders(tmp_path):
    root = tmp_path / "pets"
    own(root / "train")
    own(root / "val", count=3)
    found = data.load(str(root))
    assert [len(s) for s in (found.train, found.validation, found.test)] == [36, 4, 6]
    own(root / "test", count=5)
    found = data.load(str(root))
    assert [len(s) for s in (found.train, found.validation, found.test)] == [40, 6, 10]
    picture(root / "test" / "bird" / "0.png", 3)
    with error(ValueError, "bird", "training folder does not have"):
        data.load(str(root))


def test_broken_folders_are_one_sentence(tmp_path):
    root = tmp_path / "pets"
    root.mkdir()
    with error(ValueError, "pets is empty", "sub-folder"):
        data.load(str(root))
    (root / "cat").mkdir()
    with error(ValueError, "cat.? is empty|empty", "'cat' has no image"):
        data.load(str(root))
    own(root)
    (root / "dog" / "7.png").write_bytes(b"no image")
    with error(ValueError, "7.png is unreadable"):
        data.load(str(root))
    whole = (root / "dog" / "8.png").read_bytes()
    (root / "dog" / "7.png").write_bytes(whole[:-30])
    with error(ValueError, "7.png is unreadable"):
        data.load(str(root))
    picture(root / "dog" / "7.png", 5, size=(9, 8))
    with error(ValueError, "7.png is 9x8 but 0.png is 8x8", "mixed", "size="):
        data.load(str(root))
    assert data.load(str(root), size=(6, 4)).image_shape == (3, 6, 4)
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(root / "dog" / "7.png")
    with error(ValueError, "7.png has more than 8 bits"):
        data.load(str(root))
    own(tmp_path / "few", count=2)
    with error(ValueError, "few has 4 images, too few"):
        data.load(str(tmp_path / "few"))
    own(tmp_path / "half" / "test")
    with error(FileNotFoundError, "no folder train"):
        data.load(str(tmp_path / "half"))
    own(tmp_path / "other" / "train")
    with error(FileNotFoundError, "neither test nor validation"):
        data.load(str(tmp_path / "other"))
    own(tmp_path / "sizes" / "train")
    own(tmp_path / "sizes" / "test", size=(5, 5))
    with error(ValueError, "mixed", "\\(3, 5, 5\\)", "\\(3, 8, 8\\)"):
        data.load(str(tmp_path / "sizes"))
    with error(ValueError, "size=0"):
        data.load(str(tmp_path / "sizes"), size=0)


@pytest.mark.parametrize(
    "images, expected",
    [
        (np.full((40, 6, 5), 70, np.uint8), (1, 6, 5)),
        (np.full((40, 6, 5, 3), 70, np.uint8), (3, 6, 5)),
        (np.full((40, 3, 6, 5), 70, np.int64), (3, 6, 5)),
        (np.full((40, 6, 5, 1), 70 / 255, np.float32), (1, 6, 5)),
    ],
)
def test_arrays_of_many_shapes_and_kinds(tmp_path, images, expected):
    file = tmp_path / "mine.npz"
    images[::2, ..., :3, :3] = 0  # not all are one and the same, or of one even colour
    np.savez(file, images=images, labels=np.arange(40) % 4, classes=np.array(["a", "b", "c", "d"]))
    found = data.load(str(file))
    assert found.image_shape == expected and set(found.train.images.unique().tolist()) == {0, 70}
    assert (found.name, found.classes) == ("mine", ("a", "b", "c", "d"))
    assert data.load(str(file), size=3).image_shape == (expected[0], 3, 3)


@pytest.mark.parametrize(
    "arrays, words",
    [
        ({"images": np.zeros((40, 6, 6), np.uint8)}, ["no array named labels"]),
        ({"labels": np.zeros(40, int)}, ["no array named images"]),
        ({"images": np.zeros((40, 6, 6), np.uint8), "labels": np.zeros(39, int)}, ["40 images but 39 labels"]),
        ({"images": np.zeros((0, 6, 6), np.uint8), "labels": np.zeros(0, int)}, ["no images"]),
        ({"images": np.zeros((40, 6, 6), np.uint8), "labels": np.arange(40) % 4 - 1}, ["label -1 of image 0"]),
        ({"images": np.zeros((40, 6, 6), np.uint8), "labels": np.arange(40) % 4 + 1}, ["class 0 of 5 has no image"]),
        ({"images": np.zeros((40, 6, 6), np.uint8), "labels": np.zeros(40)}, ["float64", "whole numbers"]),
        ({"images": np.full((40, 6, 6), 300), "labels": np.zeros(40, int)}, ["300", "0 to 255"]),
        ({"images": np.full((40, 6, 6), np.nan), "labels": np.zeros(40, int)}, ["nan", "0 to 255"]),
        ({"images": np.zeros((40, 6, 6, 4), np.uint8), "labels": np.zeros(40, int)}, ["1 or 3 channels"]),
        ({"images": np.array([None] * 40), "labels": np.zeros(40, int)}, ["not an .npz file"]),
    ],
)
def test_broken_arrays_are_one_sentence(tmp_path, arrays, words):
    file = tmp_path / "mine.npz"
    np.savez(file, **arrays)
    with error(ValueError, "mine.npz", *words) as raised:
        data.load(str(file))
    assert "\n" not in str(raised.value)


def test_a_truncated_npz_is_one_sentence(tmp_path):
    file = tmp_path / "mine.npz"
    np.savez(file, images=np.zeros((40, 6, 6), np.uint8), labels=np.arange(40) % 2)
    for content in (file.read_bytes()[:300], b""):
        file.write_bytes(content)
        with error(ValueError, "mine.npz", "truncated or not an .npz"):
            data.load(str(file))


# ------------------------------------------------------------------------------------- told apart by content


@only_mnist
def test_the_digest_is_of_what_is_read_however_it_is_packed(idx_set, tmp_path):
    _, raw = idx_set
    first = data.digest("mnist", tmp_path)
    assert len(first) == 12 and int(first, 16) >= 0
    arrays = dict(zip(("train", "test"), (digits(200, seed=200), digits(50, seed=50)), strict=True))
    unpack(raw)
    assert data.digest("mnist", tmp_path) == first
    other = tmp_path / "npz"
    (other / "mnist").mkdir(parents=True)
    for name, (images, labels) in arrays.items():
        np.savez_compressed(other / "mnist" / f"{name}.npz", images=images[..., None], labels=labels.astype(np.uint8))
    assert data.digest("mnist", other) == first
    np.savez(other / "mnist" / "validation.npz", images=images, labels=labels)
    assert data.digest("mnist", other) != first, "validation images of its own"


def test_one_name_in_two_data_folders_is_two_sets(tmp_path, monkeypatch):
    for folder, seed in (("a", 0), ("b", 1)):
        (tmp_path / folder / "mnist").mkdir(parents=True)
        for name in ("train", "test"):
            images, labels = digits(40, seed=seed)
            np.savez(tmp_path / folder / "mnist" / f"{name}.npz", images=images, labels=labels)
    first, second = (data.digest("mnist", tmp_path / folder) for folder in "ab")
    assert first != second
    monkeypatch.setenv("CAPSNB_DATA", str(tmp_path / "b"))
    assert data.digest("mnist") == second


def test_the_samples_digest_does_not_depend_on_the_data_folder(tmp_path):
    assert data.digest("mnist-sample") == data.digest("mnist-sample", tmp_path) == SAMPLE


SAMPLE = "e80e9b31b7ae"  # a change would make every run on the embedded digits another run


def test_the_other_named_sets_have_digests(svhn, cifar, celeba, tiny, tmp_path):
    affnist(tmp_path / "affnist" / "test.mat", 50)
    names = ("svhn", "cifar10", "celeba", "tiny-imagenet", "affnist")
    before = {name: data.digest(name, tmp_path) for name in names}
    assert len(set(before.values())) == len(names)
    picture(tiny / "val" / "images" / "val_1.JPEG", 91, mode="L")
    picture(celeba / "img_align_celeba" / "000004.jpg", 3, size=(178, 218))
    affnist(tmp_path / "affnist" / "test.mat", 50, labels=np.zeros(50, np.uint8))
    after = {name: data.digest(name, tmp_path) for name in names}
    assert [name for name in names if before[name] == after[name]] == ["svhn", "cifar10"]
    (celeba / "img_align_celeba" / "000004.jpg").unlink()
    with error(FileNotFoundError, "000004.jpg is missing", "capsnb data fetch celeba"):
        data.digest("celeba", tmp_path)


def test_class_folders_are_known_by_the_files_that_the_reader_sees(tmp_path):
    own(tmp_path / "pets", count=10)
    first = data.digest(str(tmp_path / "pets"))
    linked = tmp_path / "elsewhere" / "linked"
    (linked / "dog").mkdir(parents=True)
    (linked / "cat").symlink_to(tmp_path / "pets" / "cat")  # a folder
    for file in (tmp_path / "pets" / "dog").iterdir():
        (linked / "dog" / file.name).symlink_to(file)
    (tmp_path / "shortcut").symlink_to(linked)
    (linked / ".hidden").mkdir()
    for name in (linked, tmp_path / "shortcut", tmp_path / "pets"):
        assert data.digest(str(name)) == data.digest(name) == first
        assert torch.equal(data.load(str(name)).train.images, data.load(str(tmp_path / "pets")).train.images)
    picture(tmp_path / "pets" / "dog" / "3.png", (104, 0, 0))  # behind the links, and as many bytes
    changed = data.digest(linked)
    assert changed == data.digest(tmp_path / "pets") != first
    (linked / "cat").unlink()
    (linked / "cat").symlink_to(tmp_path / "pets" / "dog")
    assert data.digest(linked) not in (first, changed)


def test_labels_order_splits_and_names_of_classes_are_content(tmp_path):
    own(tmp_path / "one", count=10)
    found = [data.digest(tmp_path / "one")]
    own(tmp_path / "order", classes=("dog", "cat"), count=10)
    own(tmp_path / "names", classes=("cat", "eel"), count=10)
    own(tmp_path / "label", count=10)
    (tmp_path / "label" / "cat" / "9.png").rename(tmp_path / "label" / "dog" / "-.png")
    own(tmp_path / "split" / "train", count=10)
    own(tmp_path / "split" / "test", count=10)
    found += [data.digest(tmp_path / name) for name in ("order", "names", "label", "split")]
    assert len(set(found)) == 5


def test_an_npz_file_is_known_by_its_arrays(tmp_path):
    images, labels = digits(40)

    def digest(name, save=np.savez, **arrays):
        save(tmp_path / f"{name}.npz", **{"images": images, "labels": labels} | arrays)
        return data.digest(tmp_path / f"{name}.npz")

    first = digest("first")
    assert digest("packed", np.savez_compressed) == digest("floats", images=images / 255) == first
    pixel = images.copy()
    pixel[7, 3, 3] ^= 1
    others = [digest("pixel", images=pixel), digest("labels", labels=(labels + 1) % 10)]
    others += [digest("classes", classes=np.array(list("abcdefghij"))), digest("order", images=images[::-1])]
    assert len({first, *others}) == 5
    again = digest("first", images=pixel)  # as many bytes at the same place, a moment later
    assert again == others[0]


def test_a_digest_is_made_once_and_kept_outside_the_users_folders(tmp_path, monkeypatch):
    own(tmp_path / "pets", count=10)
    before = sorted(tmp_path.rglob("*"))
    first = data.digest(tmp_path / "pets")
    assert sorted(tmp_path.rglob("*")) == before
    assert len(list((installation.user_cache() / "digests").iterdir())) == 1
    monkeypatch.setattr(sources, "gather", None)  # nothing is read again, now or in another process
    assert data.digest(tmp_path / "pets") == first
    monkeypatch.setattr(identity, "_known", {})
    assert data.digest(tmp_path / "pets") == first
    monkeypatch.undo()


def test_a_cache_that_cannot_be_written_or_read_is_no_loss(tmp_path, monkeypatch):
    own(tmp_path / "pets", count=10)
    first = data.digest(tmp_path / "pets")
    kept = next((installation.user_cache() / "digests").iterdir())
    for text in ("", "of other files 0123", "\xff"):
        kept.write_text(text, encoding="latin1")
        monkeypatch.setattr(identity, "_known", {})
        assert data.digest(tmp_path / "pets") == first
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(identity, "_known", {})
    assert data.digest(tmp_path / "pets") == first


@pytest.mark.parametrize("name", ["svhn", "nowhere", "", str(Path(__file__))])
def test_a_set_that_is_not_there_has_the_readers_sentence(name, tmp_path):
    with pytest.raises((FileNotFoundError, ValueError)) as expected:
        data.load(name, data_dir=tmp_path)
    with pytest.raises(expected.type) as raised:
        data.digest(name, tmp_path)
    assert str(raised.value) == str(expected.value)


def test_a_damaged_set_has_no_digest(idx_set, tmp_path):
    name, raw = idx_set
    (raw / IMAGES).write_bytes(gzip.compress(idx(digits(200, seed=5)[0])))
    with error(ValueError, IMAGES, "MD5 sum", "capsnb data fetch"):
        data.digest(name, tmp_path)


def test_a_folder_that_holds_itself_does_not_go_on_for_ever(tmp_path):
    own(tmp_path / "pets", count=10)
    first = data.digest(tmp_path / "pets")
    (tmp_path / "pets" / "cat" / "all").symlink_to(tmp_path / "pets")
    (tmp_path / "pets" / "cat" / "nothing").symlink_to(tmp_path / "gone")
    assert data.digest(tmp_path / "pets") == first


def test_a_short_name_is_the_sets_own(tmp_path, monkeypatch):
    (tmp_path / "pets").mkdir()
    monkeypatch.chdir(tmp_path / "pets")
    assert [data.short_name(n) for n in ("mnist", ".", tmp_path / "pets", "a/mine.npz")] == [
        "mnist",
        "pets",
        "pets",
        "mine",
    ]


def test_every_source_is_complete():
    for name, source in catalogue.SOURCES.items():
        assert source.sentence and not source.sentence.endswith("."), name
        assert callable(source.fetch) or "http" in source.fetch or "pip" in source.fetch
