"""smallNORB, EMNIST, KMNIST and CIFAR-100, read from small files of the layouts that they come in."""

import gzip
import hashlib
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_data import digits, error, idx, no_data_folder  # noqa: F401

from capsnb import data
from capsnb.data import DataSpec, catalogue, layouts, norb, prepare

KINDS = {"dat": (0x1E3D4C55, "u1"), "cat": (0x1E3D4C54, "<i4"), "info": (0x1E3D4C54, "<i4")}


def matrix(array, kind):
    """A file of NORB's binary format: at least three sides stand in its head."""
    magic, dtype = KINDS[kind]
    sides = [*array.shape, 1, 1, 1][: max(3, array.ndim)]
    return np.array([magic, array.ndim, *sides], "<u4").tobytes() + array.astype(dtype).tobytes()


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """Each category, two elevations and every azimuth: 180 pairs a part, the first pixel their azimuth / 10."""
    folder = tmp_path / "smallnorb"
    folder.mkdir()
    info = np.array([[4, e, a, 0] for _ in range(5) for e in (0, 8) for a in range(0, 36, 2)])
    labels = np.repeat(np.arange(5), 36)
    images = np.random.default_rng(0).integers(0, 256, (180, 2, 96, 96), dtype=np.uint8)
    images[:, :, 0, 0] = info[:, 2, None] + [[0, 100]]
    sums = {}
    for part in norb.STEMS:
        for kind, array in {"dat": images, "cat": labels, "info": info}.items():
            file = folder / f"{norb.STEMS[part]}-{kind}.mat.gz"
            file.write_bytes(gzip.compress(matrix(array, kind), 1))
            unpacked = gzip.decompress(file.read_bytes())
            sums |= {
                file.name: hashlib.md5(file.read_bytes()).hexdigest(),
                file.stem: hashlib.md5(unpacked).hexdigest(),
            }
    for name in ("smallnorb", "smallnorb-azimuth", "smallnorb-elevation"):
        monkeypatch.setitem(catalogue.SOURCES, name, replace(catalogue.SOURCES[name], md5=sums))
    return folder


def test_smallnorb_has_both_cameras_and_its_viewpoints(toys, tmp_path):
    found = data.load("smallnorb", data_dir=tmp_path)
    assert [len(split) for split in (found.train, found.validation, found.test)] == [162, 18, 180]
    assert found.image_shape == (2, 96, 96) and found.classes == ("animal", "human", "airplane", "truck", "car")
    seen = norb.viewpoints(toys, "test")
    assert torch.equal(10 * found.test.images[:, 0, 0, 0].long(), torch.from_numpy(seen.azimuth))
    assert (found.test.images[:, 1, 0, 0] == found.test.images[:, 0, 0, 0] + 100).all()
    assert set(seen.elevation) == {30, 70} and set(seen.azimuth) == set(range(0, 360, 20)) and set(seen.instance) == {4}
    assert prepare(DataSpec(name="smallnorb", resize=48), data_dir=tmp_path).image_shape == (2, 48, 48)
    for file in list(toys.iterdir()):
        file.with_suffix("").write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()
    assert torch.equal(data.load("smallnorb", data_dir=tmp_path).test.images, found.test.images)


def test_novel_viewpoints_are_split_as_hinton_et_al_do(toys, tmp_path):
    azimuth = data.load("smallnorb-azimuth", data_dir=tmp_path)
    trained = torch.cat([azimuth.train.images, azimuth.validation.images])[:, 0, 0, 0].unique() * 10
    assert sorted(trained.long().tolist()) == sorted([a % 256 for a in (300, 320, 340, 0, 20, 40)])
    assert len(azimuth.test) == 5 * 2 * 12 and len(trained) == 6
    elevation = data.load("smallnorb-elevation", data_dir=tmp_path)
    assert (len(elevation.train) + len(elevation.validation), len(elevation.test)) == (90, 90)
    rows = {row["name"]: (row["train"], row["validation"], row["test"]) for row in data.available(tmp_path)}
    assert rows["smallnorb"] == (162, 18, 180) and rows["smallnorb-azimuth"] == (54, 6, 120)
    assert "tested on the test toys from 45 to 70" in elevation.source
    with error(ValueError, "by 'lighting' are unknown; allowed: azimuth, elevation"):
        norb.viewpoints(toys, "train").familiar("lighting")


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "truncated or damaged|no file of NORB"),
        (b"<html>no such file</html>", "no file of NORB's binary format"),
        (matrix(np.zeros((3, 4)), "info")[:-1], "is truncated: it holds 47 bytes where its header says 48"),
        (matrix(np.zeros((3, 4)), "info") + b"x", "is too long"),
        (matrix(np.zeros((3, 5)), "info"), "is 3x5, not four numbers"),
        (np.array([0x1E3D4C54, 400_000_000], "<u4").tobytes(), "no file of NORB's binary format"),
    ],
)
def test_a_broken_smallnorb_file_is_one_sentence(toys, tmp_path, content, words):
    file = toys / f"{norb.STEMS['test']}-info.mat"
    file.with_name(f"{file.name}.gz").unlink()
    file.write_bytes(content)
    with error(ValueError, file.name, words) as raised:
        norb.viewpoints(toys, "test")
    assert "\n" not in str(raised.value)
    with error(ValueError, "MD5"):
        data.load("smallnorb", data_dir=tmp_path)
    file.unlink()
    with error(FileNotFoundError, "info.mat.gz is missing", "unpack https"):
        data.load("smallnorb", data_dir=tmp_path)


def test_emnist_stands_upright_and_counts_letters_from_a(tmp_path):
    raw = tmp_path / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    images, _ = digits(52)
    for split, labels in {"letters": np.arange(52) % 26 + 1, "digits": np.arange(52) % 10}.items():
        for part in ("train", "test"):
            (raw / f"emnist-{split}-{part}-images-idx3-ubyte").write_bytes(idx(images))
            (raw / f"emnist-{split}-{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    found = data.load("emnist-letters", data_dir=tmp_path)
    assert found.classes == tuple("abcdefghijklmnopqrstuvwxyz") and found.test.labels[:3].tolist() == [0, 1, 2]
    assert torch.equal(found.test.images[:, 0], torch.from_numpy(images).transpose(1, 2))
    assert len(data.load("emnist-digits", data_dir=tmp_path).test) == 52 and "nothing checks them" in found.source
    with error(
        FileNotFoundError, "emnist-balanced-train-images-idx3-ubyte.gz is missing", "data fetch emnist-balanced"
    ):
        data.load("emnist-balanced", data_dir=tmp_path)
    assert len(catalogue.EMNIST["balanced"]) == 47 == len(set(catalogue.EMNIST["balanced"]))


def test_kmnist_is_mnists_layout_under_its_own_sums(tmp_path, monkeypatch):
    raw = tmp_path / "KMNIST" / "raw"
    raw.mkdir(parents=True)
    monkeypatch.setattr(layouts, "IDX_COUNTS", {"train": 60, "t10k": 20})
    sums = {}
    for part, count in layouts.IDX_COUNTS.items():
        for kind, array in zip(("images-idx3", "labels-idx1"), digits(count), strict=True):
            content = gzip.compress(idx(array))
            (raw / f"{part}-{kind}-ubyte.gz").write_bytes(content)
            sums[f"{part}-{kind}-ubyte.gz"] = hashlib.md5(content).hexdigest()
    with error(ValueError, "MD5"):
        data.load("kmnist", data_dir=tmp_path)
    monkeypatch.setitem(catalogue.SOURCES, "kmnist", replace(catalogue.SOURCES["kmnist"], md5=sums))
    assert data.load("kmnist", data_dir=tmp_path).classes[1] == "ki"
    (raw / "t10k-images-idx3-ubyte.gz").rename(raw / "t10k-images-idx3-ubyte")
    with error(ValueError, "t10k-images-idx3-ubyte is unpacked|magic number"):
        data.load("kmnist", data_dir=tmp_path)


def test_cifar100_has_its_fine_classes(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    rows = np.random.default_rng(0).integers(0, 256, (200, 3072), dtype=np.uint8)
    fine = {"data": rows, "fine_labels": [*range(100)] * 2, "coarse_labels": [0] * 200}
    sums = {}
    names = [f"class {n}" for n in range(100)]
    for name, content in {"train": fine, "test": fine, "meta": {"fine_label_names": names}}.items():
        (folder / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    with error(ValueError, "train", "MD5"):
        data.load("cifar100", data_dir=tmp_path)
    monkeypatch.setitem(catalogue.SOURCES, "cifar100", replace(catalogue.SOURCES["cifar100"], md5=sums))
    found = data.load("cifar100", data_dir=tmp_path)
    assert found.classes == tuple(names) and found.image_shape == (3, 32, 32)
    assert torch.equal(found.test.images.flatten(1), torch.from_numpy(rows))
