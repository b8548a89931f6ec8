"""Image sets as people have them: each odd one is read as it is meant, or refused in one sentence."""

import struct
import zlib

import numpy as np
import pytest
import scipy.io
import torch
from PIL import Image
from test_data import affnist, celeba, digits, error, idx, no_data_folder, own, picture, tiny  # noqa: F401

from capsnb import data
from capsnb.data import single


def noise(seed=0, shape=(16, 16)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def folder(root, make, *, classes=("cat", "dog"), count=20, ending="png"):
    """A class folder whose images `make(class, number)` draws."""
    for c, name in enumerate(classes):
        (root / name).mkdir(parents=True, exist_ok=True)
        for n in range(count):
            make(c, n).save(root / name / f"{n:02}.{ending}")
    return str(root)


def stroke(c, n, ink=0):
    """A bar of ink on nothing, upright or lying."""
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[..., :3] = 255 - ink  # of what cannot be seen
    at = 4 + n % 8
    pixels[(slice(2, 14), slice(at, at + 2)) if c else (slice(at, at + 2), slice(2, 14))] = (ink, ink, ink, 255)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("ink", [0, 40, 220, 255])
def test_ink_on_nothing_is_kept_in_folders_and_uploads_alike(tmp_path, ink):
    found = data.load(folder(tmp_path / "ink", lambda c, n: stroke(c, n, ink)))
    ground = 255 if ink < 128 else 0
    assert found.train.images.unique().tolist() == sorted({ink, ground})
    assert ((found.train.images == ink).flatten(1).sum(1) == 3 * 2 * 12).all()
    file = tmp_path / "ink" / "cat" / "03.png"
    read = single.read_picture(file.read_bytes())
    assert (read == np.where(np.asarray(Image.open(file))[..., 3:] > 0, ink, ground)).all()
    grey = folder(tmp_path / "grey", lambda c, n: stroke(c, n, ink).convert("LA"))
    assert torch.equal(data.load(grey).train.images, found.train.images[:, :1])


def test_ink_in_a_palette_with_a_clear_colour_is_kept(tmp_path):
    def palette(c, n):
        image = Image.fromarray((np.asarray(stroke(c, n))[..., 3] > 0).astype(np.uint8), "P")
        image.putpalette([9, 9, 9, 0, 0, 0])
        image.info["transparency"] = 0
        return image

    assert data.load(folder(tmp_path / "ink", palette)).train.images.unique().tolist() == [0, 255]


def test_images_that_are_all_the_same_or_each_of_one_colour_are_refused(tmp_path):
    for name, colour in {"black": lambda c, n: (0, 0, 0), "even": lambda c, n: (9 * n, 200 * c, 40)}.items():
        even = folder(tmp_path / name, lambda c, n, colour=colour: Image.new("RGB", (8, 8), colour(c, n)))
        with error(ValueError, f"{name}: each of the 40 training images is of one even colour, so there is no shape"):
            data.load(even)
    np.savez(tmp_path / "same.npz", images=np.stack([noise()] * 40), labels=np.arange(40) % 2)
    with error(ValueError, "same.npz", "one and the same, so there is nothing"):
        data.load(str(tmp_path / "same.npz"))


def test_images_that_no_memory_holds_are_one_sentence(tmp_path):
    own(tmp_path / "pets")
    with error(ValueError, "40 images of 3x10000000x10000000 take 12,000,000.0 GB", "smaller size=.*resize="):
        data.load(str(tmp_path / "pets"), size=10_000_000)


@pytest.mark.parametrize("kind", [np.uint8, np.int64, bool])
def test_pixels_of_0_and_1_are_black_and_white(tmp_path, kind):
    images = (noise(shape=(40, 8, 8)) > 127).astype(kind)
    np.savez(tmp_path / "mine.npz", images=images, labels=np.arange(40) % 2)
    with pytest.warns(UserWarning, match="mine.npz: the pixels are 0 and 1, read as black and white"):
        found = data.load(str(tmp_path / "mine.npz"))
    assert found.train.images.unique().tolist() == [0, 255]
    np.savez(tmp_path / "white.npz", images=images.astype(np.uint8) * np.uint8(255), labels=np.arange(40) % 2)
    assert torch.equal(found.train.images, data.load(str(tmp_path / "white.npz")).train.images)
    with pytest.warns(UserWarning):
        assert data.digest(tmp_path / "mine.npz") == data.digest(tmp_path / "white.npz")


def test_masks_in_a_folder_are_black_and_white_too(tmp_path):
    name = folder(tmp_path / "masks", lambda c, n: Image.fromarray((noise(50 * c + n) > 127).astype(np.uint8)))
    with pytest.warns(UserWarning, match="masks: the pixels are 0 and 1"):
        found = data.load(name)
    assert found.train.images.unique().tolist() == [0, 255] == found.test.images.unique().tolist()


@pytest.mark.parametrize("images", [noise(shape=(40, 8, 8)) % 17, (noise(shape=(40, 8, 8)) % 17) / 255])
def test_a_white_of_16_is_ambiguous(tmp_path, images):
    np.savez(tmp_path / "mine.npz", images=images, labels=np.arange(40) % 2)
    with error(ValueError, "mine.npz", "brightest pixel of all images is 16", "white is 255"):
        data.load(str(tmp_path / "mine.npz"))


def test_a_white_of_1_in_255_is_ambiguous(tmp_path):
    np.savez(tmp_path / "twice.npz", images=(noise(shape=(40, 8, 8)) / 255) / 255, labels=np.arange(40) % 2)
    with error(ValueError, "twice.npz", "brightest pixel of all images is 1,"):
        data.load(str(tmp_path / "twice.npz"))


def test_images_in_deeper_folders_and_of_other_endings_are_taken(tmp_path):
    root = tmp_path / "pets"
    own(root, count=10, size=(8, 8))
    flat = data.digest(root)
    for n, ending in enumerate(("jfif", "JPG", "jp2", "tga", "pcx", "pbm", "ppm", "dib", "avif", "webp")):
        deep = root / "cat" / "2024" / ("a" if n % 2 else "b")
        deep.mkdir(parents=True, exist_ok=True)
        kind = {"jfif": "JPEG", "JPG": "JPEG", "pbm": "PPM"}.get(ending)
        Image.fromarray(noise(n, (8, 8, 3)), "RGB").convert("1" if ending == "pbm" else "RGB").save(
            deep / f"{n}.{ending}", kind
        )
    found = data.load(str(root))
    labels = torch.cat([split.labels for split in (found.train, found.validation, found.test)])
    assert labels.bincount().tolist() == [20, 10]
    deep = data.digest(root)
    assert deep != flat
    (root / "cat" / "2024" / "a" / "1.JPG").write_bytes((root / "cat" / "2024" / "b" / "0.jfif").read_bytes())
    assert data.digest(root) != deep, "a change below two folders is seen"


def test_what_is_left_out_is_counted_and_named(tmp_path):
    own(tmp_path / "pets", count=10)
    first = data.digest(tmp_path / "pets")
    for n in range(3):
        (tmp_path / "pets" / "cat" / f"{n}.heic").write_bytes(b"x")
    picture(tmp_path / "pets" / "loose.png", 9)
    with pytest.warns(UserWarning, match=r"pets: 4 files \(cat/0.heic, cat/1.heic, ...\) are left out"):
        assert len(data.load(str(tmp_path / "pets")).train) == 14
    with pytest.warns(UserWarning):
        assert data.digest(tmp_path / "pets") == first


@pytest.mark.parametrize("ending", ["gif", "tif", "png", "webp"])
def test_of_pages_and_frames_the_first_is_taken_and_said(tmp_path, ending):
    frames = [Image.fromarray(noise(n) // 2 + 100 * (n % 2)) for n in range(3)]
    root = tmp_path / "films"
    own(root, mode="L", size=(16, 16))
    kept = {"lossless": True} if ending == "webp" else {}
    frames[0].save(root / "cat" / f"film.{ending}", save_all=True, append_images=frames[1:], **kept)
    with pytest.warns(UserWarning, match=rf"1 file \(film.{ending}\) is of several pages or frames, .* first is taken"):
        found = data.load(str(root))
    every = torch.cat([split.images for split in (found.train, found.validation, found.test)])[:, :1]
    assert any(torch.equal(image, torch.from_numpy(noise(0) // 2)) for image in every[:, 0])
    with pytest.warns(UserWarning, match=r"^mine has several pages or frames, of which the first is taken\.$"):
        uploaded = single.read_picture((root / "cat" / f"film.{ending}").read_bytes(), "mine")
    assert np.array_equal(uploaded[..., 0], noise(0) // 2)


def photograph(orientation):
    """A bright top half, as a camera stores it that was held so."""
    pixels = np.zeros((12, 8), np.uint8)
    pixels[:6] = 250
    stored = Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90 if orientation == 6 else 1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    return stored, exif


@pytest.mark.parametrize(
    "kind, options", [("JPEG", {"quality": 100}), ("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})]
)
@pytest.mark.parametrize("orientation", [4, 6])
def test_a_turned_photograph_stands_alike_in_folder_and_upload(tmp_path, kind, options, orientation):
    stored, exif = photograph(orientation)
    root = tmp_path / "photographs"
    own(root, mode="L", size=(8, 12))
    for name in ("cat", "dog"):
        for n in range(20):
            stored.save(root / name / f"{n}.png", kind, exif=exif, **options)
    picture(root / "cat" / "other.png", 3, size=(8, 12), mode="L")
    image = data.load(str(root)).train.images[-1]
    assert (image[:, :5] > 240).all() and (image[:, 7:] < 10).all()
    read = single.read_picture((root / "dog" / "1.png").read_bytes())
    assert read.shape == (12, 8, 3) and (read[:5] > 240).all() and (read[7:] < 10).all()


def deep_png(values, alpha=False):
    """A PNG of 16 bits per channel: values (H, W, C)."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, 6 if alpha else 2, 0, 0, 0)
    parts = [b"IHDR" + head, b"IDAT" + zlib.compress(rows), b"IEND"]
    packed = (struct.pack(">I", len(p) - 4) + p + struct.pack(">I", zlib.crc32(p)) for p in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize("alpha", [False, True])
def test_colours_of_16_bits_are_refused_in_folders_and_uploads(tmp_path, alpha):
    own(tmp_path / "scans", size=(16, 16))
    values = np.random.default_rng(0).integers(0, 4096, (16, 16, 4 if alpha else 3))
    (tmp_path / "scans" / "cat" / "3.png").write_bytes(deep_png(values, alpha))
    with error(ValueError, "3.png has more than 8 bits per channel", "convert it to 8 bits"):
        data.load(str(tmp_path / "scans"))
    with error(ValueError, "mine.png has more than 8 bits per channel", "convert it to 8 bits"):
        single.read_picture(deep_png(values, alpha), "mine.png")


def test_a_folder_of_idx_files_of_ones_own_is_a_set(tmp_path):
    root = tmp_path / "letters"
    root.mkdir()
    for part, count in (("train", 60), ("t10k", 20)):
        images, labels = digits(count)
        (root / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (root / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    found = data.load(str(root))
    assert [len(split) for split in (found.train, found.validation, found.test)] == [54, 6, 20]
    assert found.source == "the user's own images, letters" and found.classes == tuple("0123456789")
    assert torch.equal(found.test.images[:, 0], torch.from_numpy(images))
    (root / "t10k-labels-idx1-ubyte").unlink()
    with error(FileNotFoundError, "t10k-labels-idx1-ubyte.gz is missing"):
        data.load(str(root))


def test_one_class_is_refused(tmp_path):
    own(tmp_path / "pets", classes=("cat",))
    with error(ValueError, "pets has one class, 'cat'", "two or more"):
        data.load(str(tmp_path / "pets"))
    np.savez(tmp_path / "mine.npz", images=noise(shape=(40, 8, 8)), labels=np.zeros(40, int))
    with error(ValueError, "mine.npz has one class, '0'"):
        data.load(str(tmp_path / "mine.npz"))


@pytest.mark.parametrize(
    "names", [("cat", "test", "train", "valid"), ("dog", "test"), ("bus", "car", "train"), ("a", "val")]
)
def test_classes_may_be_called_as_splits_are(tmp_path, names):
    own(tmp_path / "set", classes=names, count=10)
    found = data.load(str(tmp_path / "set"))
    assert found.classes == names
    assert len(found.train) + len(found.validation) + len(found.test) == 10 * len(names)


def test_a_train_folder_with_deeper_images_among_classes_is_a_class(tmp_path):
    own(tmp_path / "set", classes=("bus", "train"), count=10)
    own(tmp_path / "set" / "train", classes=("steam",), count=10)
    found = data.load(str(tmp_path / "set"))
    assert found.classes == ("bus", "train")
    assert sum(int((split.labels == 1).sum()) for split in (found.train, found.validation, found.test)) == 20


def test_folders_beside_the_splits_are_named(tmp_path):
    for name in ("train", "test", "extra"):
        own(tmp_path / "set" / name, count=10)
    with pytest.warns(UserWarning, match="set: the folders extra beside train are left out"):
        assert [len(s) for s in vars(data.load(str(tmp_path / "set"))).values() if hasattr(s, "labels")] == [18, 2, 20]


def test_eight_training_images_leave_none_to_validate(tmp_path):
    own(tmp_path / "few" / "train", count=4)
    own(tmp_path / "few" / "test", count=4)
    with error(ValueError, "few has 8 training images, too few for a tenth", "validation=1"):
        data.load(str(tmp_path / "few"))
    assert len(data.load(str(tmp_path / "few"), validation=2).validation) == 2
    assert len(data.load(str(tmp_path / "few"), validation=0).validation) == 0


def test_small_affnist_files_are_counted_as_they_are(tmp_path):
    affnist(tmp_path / "affnist" / "test.mat", 50)

    def row():
        return next(each for each in data.available(tmp_path) if each["name"] == "affnist")

    assert (row()["train"], row()["test"]) == (0, 50)
    fields = {
        "a": 0,
        "b": 0,
        "image": np.zeros((1600, 7), np.uint8),
        "c": 0,
        "d": 0,
        "label_int": np.zeros((1, 7), np.uint8),
    }
    scipy.io.savemat(tmp_path / "affnist" / "test.mat", {"affNISTdata": fields})
    assert row()["test"] == 7, "its fields in another order"
    affnist(tmp_path / "affnist" / "test.mat", 50)
    below = tmp_path / "affnist"
    for n in (1, 2, 3):
        affnist(below / "test_batches" / f"{n}.mat", 70 + n)
    affnist(below / "training_and_validation_batches" / "1.mat", 100)
    assert (row()["train"], row()["test"]) == (90, 216)
    (below / "test_batches" / "2.mat").write_bytes(b"no such file")
    assert row()["test"] is None and "2.mat is truncated or no affNIST file" in row()["note"]


def test_celeba_is_read_as_csv_and_nothing_is_to_be_deleted(celeba, tmp_path):  # noqa: F811
    expected = data.load("celeba", data_dir=tmp_path)
    for name, head in (("list_attr_celeba", "image_id,Young,Male"), ("list_eval_partition", "image_id,partition")):
        lines = (celeba / f"{name}.txt").read_text().splitlines()[2 if "attr" in name else 0 :]
        (celeba / f"{name}.csv").write_text("\n".join([head, *(",".join(line.split()) for line in lines)]))
        (celeba / f"{name}.txt").unlink()
    inner = celeba / "img_align_celeba" / "img_align_celeba"
    (celeba / "img_align_celeba").rename(celeba / "images")
    inner.parent.mkdir()
    (celeba / "images").rename(inner)
    found = data.load("celeba", data_dir=tmp_path)
    for split in ("train", "validation", "test"):
        assert torch.equal(getattr(found, split).images, getattr(expected, split).images)
        assert torch.equal(getattr(found, split).labels, getattr(expected, split).labels)
    (celeba / "list_attr_celeba.csv").unlink()
    with error(FileNotFoundError, "list_attr_celeba.txt is missing", "leaves the rest") as raised:
        data.load("celeba", data_dir=tmp_path)
    assert "delete" not in str(raised.value)


def test_a_blank_line_in_tiny_imagenets_list_is_no_image(tiny, tmp_path):  # noqa: F811
    notes = tiny / "val" / "val_annotations.txt"
    notes.write_text(notes.read_text().replace("\n", "\n\n"))
    assert len(data.load("tiny-imagenet", data_dir=tmp_path).test) == 2
    notes.write_text("val_0.JPEG n02\n")
    with error(ValueError, "val_annotations.txt has the line 'val_0.JPEG n02'", "with a tab between"):
        data.load("tiny-imagenet", data_dir=tmp_path)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 123\n"


def test_a_pointer_of_git_lfs_says_so(tmp_path, tiny):  # noqa: F811
    own(tmp_path / "pets")
    (tmp_path / "pets" / "cat" / "3.png").write_text(POINTER)
    (tmp_path / "mine.npz").write_text(POINTER)
    (tiny / "words.txt").write_text(POINTER)
    for name in (tmp_path / "pets", tmp_path / "mine.npz", "tiny-imagenet"):
        with error(ValueError, "3.png|mine.npz|words.txt", "is a pointer of Git LFS", "git lfs pull"):
            data.load(str(name), data_dir=tmp_path)


def test_the_training_images_decide_what_white_is(tmp_path):
    (tmp_path / "mine").mkdir()
    for name, images in {"train": noise(shape=(40, 8, 8)), "test": noise(1, (40, 8, 8)) % 20}.items():
        np.savez(tmp_path / "mine" / f"{name}.npz", images=images, labels=np.arange(40) % 2)
    assert data.load(str(tmp_path / "mine")).test.images.max() == 19
    folder(tmp_path / "dim" / "train", lambda c, n: Image.fromarray(noise(40 * c + n)))
    folder(tmp_path / "dim" / "test", lambda c, n: Image.fromarray(noise(40 * c + n) % 20))
    assert data.load(str(tmp_path / "dim")).test.images.max() == 19
