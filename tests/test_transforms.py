"""Derived sets and augmentation: numbers are recovered from images made by hand, or held against a slow reference."""

import hashlib
import math
from dataclasses import FrozenInstanceError, fields, replace
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from capsnb.data import Augment, DataSpec, ImageSet, Split, load, pixels, prepare
from capsnb.data.transforms import (
    Affine,
    Pairs,
    PairSplit,
    Translated,
    affine,
    counters,
    overlap,
    pair_splits,
    shift_grid,
)


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch):
    monkeypatch.delenv("CAPSNB_DATA", raising=False)


def image_set(images, labels=None, classes=10):
    labels = torch.arange(len(images)) % classes if labels is None else labels
    split = Split(images, labels)
    return ImageSet("made", "made by hand", tuple(map(str, range(classes))), split, split, split)


def dots(count, row, column, side=28):
    """`count` images with one bright pixel."""
    images = torch.zeros(count, 1, side, side, dtype=torch.uint8)
    images[:, :, row, column] = 255
    return images


def blobs(count, x, y, side=41):
    """`count` images of a smooth spot at (x, y) from the centre."""
    at = torch.arange(side) - (side - 1) / 2
    spot = 255 * torch.exp(-((at - x) ** 2 + (at[:, None] - y) ** 2) / 8)
    return spot.round().to(torch.uint8).expand(count, 1, side, side)


def centroid(images):
    """Centre of mass as (x, y) from the centre of the canvas."""
    weight = images[:, 0].double()
    at = [torch.arange(n, dtype=torch.float64) - (n - 1) / 2 for n in weight.shape[1:]]
    total = weight.sum((1, 2))
    return torch.stack(((weight.sum(1) * at[1]).sum(1), (weight.sum(2) * at[0]).sum(1)), 1) / total[:, None]


def checksum(*tensors):
    return hashlib.sha256(b"".join(t.contiguous().numpy().tobytes() for t in tensors)).hexdigest()[:16]


@pytest.fixture(scope="module")
def digits():
    return load("mnist-sample")


# ------------------------------------------------------------------------------------------ random by place


def splitmix64(x):
    """The published generator's step, in Python's whole numbers."""
    mask = (1 << 64) - 1
    x = (x + 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


@settings(max_examples=100, deadline=None)
@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 99), st.integers(0, 2**40))
def test_the_hash_is_splitmix64_over_seed_stream_and_place(seed, stream, place):
    mask = (1 << 64) - 1
    expected = splitmix64(splitmix64((seed & mask) ^ stream) ^ place)
    found = counters.draw(seed, stream, torch.tensor([place]))
    assert found.item() & mask == expected
    assert counters.below(found, 7).item() == (expected >> 33) % 7
    assert counters.uniform(found).item() == (expected >> 11) / 2**53


def test_the_hash_equals_the_published_first_output():
    assert counters._splitmix(torch.tensor([0])).item() & ((1 << 64) - 1) == 0xE220A8397B1DCDAF


def test_draws_are_uniform_and_uncorrelated_between_streams_and_neighbours():
    place = torch.arange(40_000)
    first, second = (counters.uniform(counters.draw(3, stream, place)) for stream in (0, 1))
    for values in (first, second):
        assert abs(values.mean() - 0.5) < 0.01 and abs(values.std() - 12**-0.5) < 0.01
    for pair in ((first, second), (first[1:], first[:-1])):
        assert abs(torch.corrcoef(torch.stack(pair))[0, 1]) < 0.02


# ------------------------------------------------------------------------------------------------- pixels


def bilinear_reference(image, matrix, shift, height, width):
    """Pixel by pixel in Python: where each canvas pixel comes from, and the four image pixels around there."""
    rows, columns = len(image), len(image[0])
    (a, b), (c, d) = matrix
    det = a * d - b * c
    made = [[0.0] * width for _ in range(height)]
    for row in range(height):
        for column in range(width):
            x, y = column - (width - 1) / 2 - shift[0], row - (height - 1) / 2 - shift[1]
            u = (d * x - b * y) / det + (columns - 1) / 2
            v = (a * y - c * x) / det + (rows - 1) / 2
            for i in (math.floor(v), math.floor(v) + 1):
                for j in (math.floor(u), math.floor(u) + 1):
                    if 0 <= i < rows and 0 <= j < columns:
                        made[row][column] += image[i][j] * (1 - abs(v - i)) * (1 - abs(u - j))
    return torch.tensor(made, dtype=torch.float64)


def test_warp_follows_the_pixel_by_pixel_reference():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (6, 1, 7, 9), generator=generator, dtype=torch.uint8)
    matrix = torch.eye(2, dtype=torch.float64) + 0.3 * torch.randn(6, 2, 2, generator=generator, dtype=torch.float64)
    shift = 2 * torch.randn(6, 2, generator=generator, dtype=torch.float64)
    made = pixels.warp(images, matrix, shift, 10, 11)
    for n in range(6):
        expected = bilinear_reference(images[n, 0].tolist(), matrix[n].tolist(), shift[n].tolist(), 10, 11)
        assert (made[n, 0] - expected).abs().max() <= 0.51
    assert made.dtype == torch.uint8 and made.shape == (6, 1, 10, 11)


def test_warp_by_nothing_is_exact_and_a_pixel_never_depends_on_the_batch(digits, monkeypatch):
    images = digits.test.images[:64]
    still, zero = torch.eye(2).expand(64, 2, 2), torch.zeros(64, 2)
    assert torch.equal(pixels.warp(images, still, zero, 28, 28), images)
    matrix = pixels.rotate_shear_scale(torch.linspace(-20, 20, 64), torch.zeros(64), torch.ones(64, 2))
    whole = pixels.warp(images, matrix, zero, 40, 40)
    monkeypatch.setattr(pixels, "_CHUNK", 5000)
    assert torch.equal(pixels.warp(images, matrix, zero, 40, 40), whole)
    for n in (0, 7, 63):
        assert torch.equal(pixels.warp(images[n : n + 1], matrix[n : n + 1], zero[:1], 40, 40)[0], whole[n])


def test_resizing_keeps_constants_and_means(digits):
    constant = torch.full((3, 3, 9, 5), 77, dtype=torch.uint8)
    assert (pixels.resize(constant, 4, 11) == 77).all()
    images = digits.test.images
    small = pixels.resize(images, 14, 14)
    assert small.shape == (1000, 1, 14, 14)
    assert abs(small.float().mean() - images.float().mean()) < 0.5
    assert pixels.resize(images[:0], 14, 14).shape == (0, 1, 14, 14)


def test_the_ink_box_is_tight_and_a_black_image_is_all_ink():
    images = dots(2, 3, 5)
    images[0, 0, 10, 20] = 1
    images[1] = 0
    assert [edge.tolist() for edge in pixels.ink_box(images)] == [[3, 0], [10, 27], [5, 0], [20, 27]]


# --------------------------------------------------------------------------------------------- DataSpec


def test_prepare_crops_resizes_and_pads_in_this_order():
    spec = DataSpec(crop=20, resize=10, pad=3, train=100, validation=20, test=30)
    data = prepare(spec)
    assert data.image_shape == (1, 16, 16)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [100, 20, 30]
    plain = prepare(replace(spec, crop=None, resize=None, pad=0))
    expected = pixels.resize(plain.test.images[:, :, 4:24, 4:24], 10, 10)
    assert torch.equal(data.test.images[:, :, 3:13, 3:13], expected)
    border = data.test.images.clone()
    border[:, :, 3:13, 3:13] = 0
    assert not border.any()
    assert data.source.endswith("; central 20x20; resized to 10x10; padded by 3 px")


def test_limits_are_balanced_and_nested():
    small, large = prepare(DataSpec(train=50, test=37)), prepare(DataSpec(train=200, test=100))
    assert small.train.labels.bincount().tolist() == [5] * 10
    assert set(small.test.labels.bincount().tolist()) == {3, 4}
    assert torch.equal(small.train.images, large.train.images[:50])
    assert torch.equal(small.test.images, large.test.images[:37])


def test_validation_beyond_the_sets_own_comes_out_of_training():
    data = prepare(DataSpec(validation=1000))
    assert [len(s) for s in (data.train, data.validation, data.test)] == [3000, 1000, 1000]
    fewer = prepare(DataSpec(validation=100))
    assert [len(s) for s in (fewer.train, fewer.validation, fewer.test)] == [3500, 100, 1000]


@pytest.mark.parametrize(
    "options, words",
    [
        ({"name": ""}, "DataSpec.name=''"),
        ({"crop": 0}, "DataSpec.crop=0 must be a whole number, at least 1"),
        ({"resize": 2.5}, "DataSpec.resize=2.5 must be a whole number"),
        ({"pad": -1}, "DataSpec.pad=-1 must be a whole number, at least 0"),
        ({"train": True}, "DataSpec.train=True must be a whole number"),
        ({"seed": -1}, "DataSpec.seed=-1"),
        ({"derive": "b"}, "DataSpec.derive='b' must be a Translated"),
    ],
)
def test_a_bad_spec_is_one_sentence(options, words):
    with pytest.raises(ValueError, match=words):
        DataSpec(**options)


def test_a_spec_that_the_set_cannot_meet_is_one_sentence():
    with pytest.raises(
        ValueError, match=r"DataSpec.train=9,000 asks for more than the 3,500 train images of mnist-sample"
    ):
        prepare(DataSpec(train=9000))
    with pytest.raises(ValueError, match=r"DataSpec.crop=30 is larger than the images, 28x28"):
        prepare(DataSpec(crop=30))
    with pytest.raises(ValueError, match="size=20 cannot hold images of 28x28"):
        prepare(DataSpec(derive=Translated(size=20)))


CONFIGS = [Translated(), Affine(kind="a"), Affine(kind="b"), Affine(kind="c"), Pairs(per_image=2)]


@pytest.mark.parametrize("config", [DataSpec(), Augment(), *CONFIGS], ids=repr)
def test_configs_are_frozen_hashable_and_hold_plain_values(config):
    with pytest.raises(FrozenInstanceError):
        config.seed = 3
    assert hash(config) == hash(replace(config))
    plain = str | int | float | bool | tuple | None
    assert all(isinstance(getattr(config, field.name), plain) for field in fields(config))


@pytest.mark.parametrize("config", CONFIGS, ids=repr)
def test_a_derived_set_is_fixed_by_its_seed_and_says_what_it_is(config):
    spec = DataSpec(train=60, validation=20, test=40, derive=config)
    first, again, other = prepare(spec), prepare(spec), prepare(replace(spec, derive=replace(config, seed=1)))
    index = torch.arange(len(first.test))
    assert torch.equal(first.test.batch(index).images, again.test.batch(index).images)
    assert not torch.equal(first.test.batch(index).images, other.test.batch(index).images)
    side = config.size
    assert first.image_shape == first.validation.image_shape == first.test.image_shape == (1, side, side)
    assert first.source.startswith(load("mnist-sample").source + "; ") and first.name != "mnist-sample"
    assert first.to("cpu").image_shape == first.image_shape


@pytest.mark.parametrize("config", CONFIGS[:-1], ids=repr)
def test_image_i_depends_on_nothing_but_its_number(config, digits, monkeypatch):
    whole = config(image_set(digits.test.images[:300], digits.test.labels[:300])).test.images
    few = config(image_set(digits.test.images[:10], digits.test.labels[:10])).test.images
    assert torch.equal(whole[:10], few)
    monkeypatch.setattr(affine, "_CHUNK", 7)
    again = config(image_set(digits.test.images[:300], digits.test.labels[:300])).test.images
    assert torch.equal(again, whole)


# -------------------------------------------------------------------------------------------- Translated


def test_translated_images_lie_whole_and_anywhere(digits):
    data = Translated(size=40)(image_set(dots(5000, 0, 0), torch.arange(5000) % 10))
    rows, columns = data.test.images[:, 0].flatten(1).argmax(1) // 40, data.test.images[:, 0].flatten(1).argmax(1) % 40
    for places in (rows, columns):
        counts = places.bincount()
        assert len(counts) == 13 and counts.min() > 5000 / 13 * 0.75  # 0..12, evenly
    assert (data.test.images.flatten(1).sum(1) == 255).all()
    assert abs(torch.corrcoef(torch.stack((rows, columns)).double())[0, 1]) < 0.05
    assert not torch.equal(data.train.images, data.test.images)  # each split has places of its own
    real = Translated(size=40)(digits)
    assert torch.equal(real.test.images.flatten(1).sum(1), digits.test.images.flatten(1).sum(1))
    assert torch.equal(real.test.labels, digits.test.labels)


def test_splits_that_are_not_named_are_centred():
    data = Translated(size=40, splits=("test",))(image_set(dots(50, 0, 0)))
    assert (data.train.images[:, 0, 6, 6] == 255).all()
    assert not (data.test.images[:, 0, 6, 6] == 255).all()


def test_translated_images_are_bit_stable(digits):
    assert checksum(Translated()(digits).test.images) == "31e329190be4e5ce"


# ------------------------------------------------------------------------------------------------ Affine

RANGES = {"a": (0.2, False), "b": (1.0, False), "c": (math.tan(math.radians(40)), True)}  # shear factor, one scale


@pytest.mark.parametrize("kind", "abc")
def test_transforms_fill_their_ranges_and_no_more(kind):
    found = Affine(kind=kind).transforms(torch.arange(20_000))
    shear, one_scale = RANGES[kind]
    for values, low, high in (
        (found.rotation, -20, 20),
        (found.shear, -shear, shear),
        (found.scale[:, 0], 0.8, 1.2),
        (found.scale[:, 1], 0.8, 1.2),
    ):
        assert low <= values.min() < low + (high - low) / 1000
        assert high - (high - low) / 1000 < values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < (high - low) / 100
    assert torch.equal(found.scale[:, 0], found.scale[:, 1]) == one_scale
    linear = found.shear if kind == "a" else torch.rad2deg(torch.atan(found.shear))  # uniform in factor or in degrees
    for values in (found.rotation, linear):
        assert abs(values.std() - (values.max() - values.min()) * 12**-0.5) < 0.1
    index = torch.tensor([19_999, 4])
    assert torch.equal(Affine(kind=kind).transforms(index).matrix, found.matrix[index])
    assert not torch.equal(Affine(kind=kind).transforms(index, "train").matrix, found.matrix[index])


def test_the_images_show_the_transforms_that_were_drawn():
    """Spots right of and below the centre give the two columns of the matrix, the one in the centre the shift."""
    config, count = Affine(kind="b", size=75), 200
    chosen = config.transforms(torch.arange(count))
    places = {at: centroid(config(image_set(blobs(count, *at))).test.images) for at in ((0, 0), (10, 0), (0, 10))}
    shift = places[0, 0]
    right, down = (places[10, 0] - shift) / 10, (places[0, 10] - shift) / 10
    assert (torch.stack((right, down), 2) - chosen.matrix).abs().max() < 0.02
    assert (torch.rad2deg(torch.atan2(right[:, 1], right[:, 0])) - chosen.rotation).abs().max() < 1
    assert (right.norm(dim=1) - chosen.scale[:, 0]).abs().max() < 0.02
    assert 7.5 < shift.abs().max() <= 8.01
    assert abs(shift.std() - 8 / 3**0.5) < 0.5


def test_kind_a_loses_no_ink_and_goes_as_far_as_the_edges(digits):
    config, images = Affine(kind="a"), digits.test.images
    chosen = config.transforms(torch.arange(1000))
    made = config._transformed(images, "test")
    larger = pixels.warp(images, chosen.matrix, affine._inside(images, chosen, 40), 60, 60)
    assert torch.equal(pixels.centre(larger, 40, 40), made)
    assert torch.equal(larger.flatten(1).sum(1), made.flatten(1).sum(1))  # nothing outside
    top, bottom, left, right = pixels.ink_box(made)
    for edge in (top, 39 - bottom, left, 39 - right):
        assert edge.min() <= 1 and edge.float().mean() > 3


def test_kind_a_centres_what_fits_nowhere_and_takes_black_images():
    whole = torch.full((20, 1, 28, 28), 255, dtype=torch.uint8)
    config = Affine(kind="a", size=28)
    large = (config.transforms(torch.arange(20)).scale > 1.05).all(1)
    assert large.any() and (centroid(config(image_set(whole)).test.images)[large].abs() < 1e-2).all()
    assert not Affine(kind="a")(image_set(torch.zeros_like(whole))).test.images.any()
    assert not Affine(kind="c")(image_set(torch.zeros_like(whole))).test.images.any()


def test_kind_c_puts_the_ink_anywhere_by_whole_pixels(digits):
    config, images = Affine(kind="c"), digits.test.images
    made = config._transformed(images, "test")
    chosen = config.transforms(torch.arange(1000))
    still = pixels.warp(images, chosen.matrix, torch.zeros(1000, 2), 40, 40)
    new, old = pixels.ink_box(made), pixels.ink_box(still)
    assert torch.equal(new[1] - new[0], old[1] - old[0]) and torch.equal(new[3] - new[2], old[3] - old[2])
    for n in range(0, 1000, 37):
        (t, b, le, r), (t0, b0, l0, r0) = ([int(e[n]) for e in box] for box in (new, old))
        assert torch.equal(made[n, :, t : b + 1, le : r + 1], still[n, :, t0 : b0 + 1, l0 : r0 + 1])
    assert torch.equal(made.flatten(1).sum(1), still.flatten(1).sum(1))
    for edge in (new[0], 39 - new[1], new[2], 39 - new[3]):
        assert edge.min() == 0


@pytest.mark.parametrize("others, expected", [("centred", True), ("placed", False)])
def test_only_the_test_split_is_transformed_unless_asked(others, expected):
    plain = image_set(dots(50, 0, 0))
    data = Affine(kind="b", others=others)(plain)
    assert (data.train.images[:, 0, 6, 6] == 255).all().item() == expected
    assert (data.train.images.flatten(1).sum(1) == 255).all()  # moved by whole pixels only
    every = Affine(kind="b", splits=("train", "validation", "test"))(plain)
    assert not (every.train.images.flatten(1).sum(1) == 255).all()
    assert "affNIST-like (b), not affNIST" in data.source


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: Affine(kind="d"), "Affine.kind='d' is not one of a, b, c"),
        (lambda: Affine(others="moved"), "Affine.others='moved' is neither"),
        (lambda: Affine(splits=("tests",)), "Affine.splits=.* out of train, validation, test"),
        (lambda: Translated(splits=["test"]), "Translated.splits=.* must be a tuple"),
        (lambda: Translated(size=0), "Translated.size=0 must be a whole number, at least 1"),
        (lambda: Pairs(per_image=0), "Pairs.per_image=0 must be a whole number, at least 1"),
        (lambda: Pairs(shift=-1), "Pairs.shift=-1"),
        (lambda: Pairs(test=0), "Pairs.test=0"),
        (lambda: Pairs(pairs=((1, 1),)), "Pairs.pairs=.* two different classes"),
        (lambda: Pairs(pairs=()), "Pairs.pairs=.* two different classes"),
        (lambda: Augment(shift=-1), "Augment.shift=-1"),
        (lambda: Augment(flip=1), "Augment.flip=1 must be True or False"),
        (lambda: Augment(rotation=181.0), "Augment.rotation=181.0 must be 0 to 180"),
        (lambda: Augment(shear=90.0), "Augment.shear=90.0"),
        (lambda: Augment(scale=(1.2, 0.8)), "Augment.scale=.* two positive factors"),
        (lambda: shift_grid(dots(1, 0, 0), -1), "radius=-1 is negative"),
        (lambda: Pairs(size=30)(image_set(dots(20, 0, 0))), "Pairs.size=30 is too small .* at least 36"),
        (lambda: Pairs(pairs=((0, 10),))(image_set(dots(20, 0, 0))), "Pairs.pairs names class 10, but there are 10"),
        (lambda: Pairs()(image_set(dots(20, 0, 0), torch.zeros(20, dtype=torch.int64))), "no two images"),
    ],
)
def test_a_bad_value_is_one_sentence(make, words):
    with pytest.raises(ValueError, match=words):
        make()


# ------------------------------------------------------------------------------------------------- Pairs


def pairs(digits, **options):
    return Pairs(**options)(digits)


def test_pairs_are_different_classes_clipped_and_rebuilt_from_their_targets(digits):
    data = pairs(digits, per_image=1000)
    assert len(data.train) == 3_500_000 and len(data.test) == 1000 and data.image_shape == (1, 36, 36)
    index = torch.randint(0, len(data.train), (2000,), generator=torch.Generator().manual_seed(0))
    batch = data.train.batch(index)
    assert batch.images.shape == (2000, 1, 36, 36) and batch.images.dtype == torch.uint8
    assert batch.labels.shape == (2000, 2) and batch.targets.shape == (2000, 2, 1, 36, 36)
    assert (batch.labels[:, 0] != batch.labels[:, 1]).all()
    expected = batch.targets.int().sum(1).clamp(max=255)
    assert torch.equal(batch.images.int(), expected) and (expected == 255).any()
    assert torch.equal(batch.labels[:, 0], digits.train.labels[index % 3500])
    share = torch.bincount(batch.labels[:, 1], minlength=10) / 2000
    assert (share - 0.1).abs().max() < 0.03  # partners come from all classes alike


def test_a_clipped_sum_by_hand():
    first, second = torch.tensor([[0, 10, 200, 255]]).byte(), torch.tensor([[0, 20, 100, 255]]).byte()
    assert overlap(first, second).tolist() == [[0, 30, 255, 255]]


def test_targets_are_the_images_moved_by_up_to_the_shift(digits):
    data = pairs(digits, per_image=3)
    index = torch.arange(10_500)
    places = data.train.places(index)
    assert places.corners.min() == 0 and places.corners.max() == 8
    counts = places.corners.flatten().bincount()
    assert counts.min() > 0.9 * counts.float().mean()
    batch = data.train.batch(index[:50])
    for n in range(50):
        for which in range(2):
            top, left = places.corners[n, which].tolist()
            moved = batch.targets[n, which, :, top : top + 28, left : left + 28]
            assert torch.equal(moved, digits.train.images[places.images[n, which]])
            assert batch.targets[n, which].sum() == moved.sum()
    corners = places.corners.flatten(1).double().T
    assert (torch.corrcoef(corners) - torch.eye(4)).abs().max() < 0.05


def test_a_pair_depends_on_seed_image_and_number_alone(digits):
    data = pairs(digits, per_image=1000)
    index = torch.tensor([3_499_999, 0, 17, 2_000_000])
    together = data.train.batch(index)
    for n, one in enumerate(index):
        alone = data.train.batch(one[None])
        assert torch.equal(alone.images[0], together.images[n]) and torch.equal(alone.labels[0], together.labels[n])
    fewer = pairs(digits, per_image=2).train.batch(torch.arange(100))
    assert torch.equal(fewer.images, data.train.batch(torch.arange(100)).images)
    assert not torch.equal(fewer.images, pairs(digits, seed=1).train.batch(torch.arange(100)).images)
    partners = data.train.places(torch.arange(1000) * 3500).images  # all pairs of image 0
    assert (partners[:, 0] == 0).all() and len(partners[:, 1].unique()) > 800


def test_pairs_are_bit_stable(digits):
    batch = pairs(digits, per_image=1000).train.batch(torch.arange(0, 3_500_000, 35_001))
    assert checksum(*batch) == "88cc01038f684449"


def test_sixty_million_pairs_cost_no_memory_and_batches_come_in_order():
    data = Pairs(per_image=1000, size=14)(image_set(dots(60_000, 5, 5, side=6)))
    assert len(data.train) == 60_000_000
    assert data.train.batch(torch.tensor([59_999_999])).labels[0, 0] == 9
    assert [len(b.labels) for b in data.test.batches(25_000)] == [25_000, 25_000, 10_000]
    with pytest.raises(ValueError, match="batch of 0"):
        next(data.test.batches(0))


def test_a_fixed_total_uses_each_image_once_before_any_twice(digits):
    data = pairs(digits, train=5000, test=478)
    assert [len(s) for s in (data.train, data.validation, data.test)] == [5000, 500, 478]
    first = data.train.places(torch.arange(5000)).images[:, 0]
    assert len(first[:3500].unique()) == 3500 and len(first[3500:].unique()) == 1500
    base = data.test.batch(torch.arange(478)).labels[:, 0]
    assert base.bincount().min() > 25  # drawn over all classes, not the first images of the file


def test_pairs_of_an_empty_split_are_none():
    split = Split(torch.zeros(0, 1, 28, 28, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64))
    assert len(PairSplit(base=split, config=Pairs(), stream=0, classes=10)) == 0


def test_pair_splits_are_disjoint_complete_and_cover_all_classes():
    first, second = pair_splits()
    assert not set(first) & set(second)
    assert sorted(first + second) == list(combinations(range(10), 2))
    for part in (first, second):
        assert {digit for pair in part for digit in pair} == set(range(10))


def test_ten_digits_split_in_halves_and_the_pairs_stay_inside(digits):
    parts = pair_splits()
    assert [len(part) for part in parts] == [22, 23]
    seen = []
    for part in parts:
        labels = pairs(digits, pairs=part).train.batch(torch.arange(7000)).labels
        seen.append({tuple(sorted(pair)) for pair in labels.tolist()})
        assert seen[-1] == set(part)
        assert set(labels[:, 0].tolist()) == set(labels[:, 1].tolist()) == set(range(10))
    assert not seen[0] & seen[1]


def test_classes_without_a_partner_are_left_out(digits):
    data = pairs(digits, per_image=2, pairs=((3, 5),))
    assert len(data.train) == 2 * 700
    labels = data.train.batch(torch.arange(1400)).labels
    assert set(map(tuple, labels.tolist())) == {(3, 5), (5, 3)}


# -------------------------------------------------------------------------------------------- shift grid


def test_the_shift_grid_moves_by_its_offsets_over_a_fixed_image(digits):
    moving, fixed = digits.test.images[:2], digits.test.images[5]
    grid = shift_grid(moving)
    assert grid.images.shape == (81, 2, 1, 36, 36) and grid.offsets[[0, 40, 80]].tolist() == [[-4, -4], [0, 0], [4, 4]]
    for n in (0, 10, 40, 77):
        down, right = grid.offsets[n].tolist()
        inner = grid.images[n, :, :, 4 + down : 32 + down, 4 + right : 32 + right]
        assert torch.equal(inner, moving)
        assert torch.equal(grid.images[n].flatten(1).sum(1), moving.flatten(1).sum(1))
    both = shift_grid(moving, fixed=fixed)
    still = pixels.centre(fixed[None], 36, 36).int()
    assert torch.equal(both.images.int(), (grid.images.int() + still).clamp(max=255))
    assert shift_grid(moving, 0).images.shape == (1, 2, 1, 28, 28)


# ----------------------------------------------------------------------------------------------- Augment


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_shifts_are_whole_even_and_each_images_own():
    made = Augment(shift=2)(dots(5000, 14, 10), generator())
    place = made[:, 0].flatten(1).argmax(1)
    rows, columns = place // 28 - 14, place % 28 - 10
    assert (made.flatten(1).sum(1) == 255).all()
    counts = torch.bincount((rows + 2) * 5 + columns + 2)
    assert len(counts) == 25 and counts.min() > 150


def test_what_leaves_the_image_is_gone_and_zeros_come_in():
    full = torch.full((200, 3, 6, 6), 9, dtype=torch.uint8)
    made = Augment(shift=8)(full, generator())
    assert set(made.unique().tolist()) == {0, 9}
    assert (made.flatten(1).amax(1) == 0).any()  # moved out altogether
    assert torch.equal(made[:, 0], made[:, 2])  # channels move together


def test_half_of_the_images_are_flipped():
    images = dots(4000, 3, 5)
    made = Augment(flip=True)(images, generator())
    flipped = made[:, 0, 3, 22] == 255
    assert abs(flipped.float().mean() - 0.5) < 0.03
    assert torch.equal(made[~flipped], images[~flipped]) and torch.equal(made[flipped], images[flipped].flip(-1))


def test_rotation_shear_and_scale_stay_in_their_ranges():
    right, down = (blobs(300, x, y) for x, y in ((10, 0), (0, 10)))
    turned = centroid(Augment(rotation=30.0)(right, generator()))
    angle = torch.rad2deg(torch.atan2(turned[:, 1], turned[:, 0]))
    assert -30.5 < angle.min() < -28 and 28 < angle.max() < 30.5
    assert (turned.norm(dim=1) - 10).abs().max() < 0.1
    slanted = centroid(Augment(shear=20.0)(down, generator()))
    angle = torch.rad2deg(torch.atan2(slanted[:, 0], slanted[:, 1]))
    assert 18 < angle.abs().max() < 20.5 and (slanted[:, 1] - 10).abs().max() < 0.1
    grown = centroid(Augment(scale=(0.5, 1.5))(right, generator()))
    assert 4.9 < grown[:, 0].min() < 5.5 and 14.5 < grown[:, 0].max() < 15.1 and grown[:, 1].abs().max() < 0.1


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 4), st.booleans(), st.sampled_from([0.0, 15.0]), st.integers(1, 5), st.sampled_from([1, 3]))
def test_augmentation_keeps_shape_and_type_and_follows_the_generator(shift, flip, rotation, count, channels):
    images = torch.randint(0, 256, (count, channels, 9, 7), generator=generator(7), dtype=torch.uint8)
    kept = images.clone()
    augment = Augment(shift=shift, flip=flip, rotation=rotation)
    first, again = augment(images, generator(3)), augment(images, generator(3))
    assert first.shape == images.shape and first.dtype == torch.uint8
    assert torch.equal(first, again) and torch.equal(images, kept)
    if augment == Augment():
        assert first is images


def test_padding_and_shifting_reaches_every_place_in_the_canvas():
    data = prepare(DataSpec(pad=6, train=20))
    made = Augment(shift=6)(data.train.images[:1].expand(4000, -1, -1, -1), generator())
    sums = made.flatten(1).sum(1)
    assert (sums == data.train.images[0].sum()).all()  # always fully inside
    assert len({tuple(edge) for edge in torch.stack(pixels.ink_box(made)[::2], 1).tolist()}) == 169
