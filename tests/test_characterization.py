"""The measures of notebook 01, against the functions they are made of, slow loops and values by hand."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close
from toys import TwoPaths, two_path_images

from capsnb.data import DataSpec, ImageSet, Split, prepare
from capsnb.measure import overlap, paths, perturbation, sharing, visual
from capsnb.measure.characterization import _on_strokes
from capsnb.measure.protocol import find
from capsnb.measure.robustness import pose_clouds
from capsnb.nn import taps
from capsnb.nn.models import CapsNetConfig, MatrixCapsNetConfig, StridedStem

VECTOR = CapsNetConfig(size=14, stem=StridedStem(channels=4, kernel=5, types=2, dim=4), dim=4, decoder_widths=(8,))
MATRIX = MatrixCapsNetConfig(size=14, width=4, types=2, layers=((2, 3, 2),), padding=0, decoder_widths=(8,))
PIXELS = two_path_images([[1.0, 0.9, 0.5, 0.4], [0.9, 0.8, 0.4, 0.3], [0.5, 0.4, 1.0, 0.9], [0.3, 0.4, 0.8, 0.9]])
PATHS = ImageSet("two paths", "", ("0", "1"), *[Split(PIXELS, torch.tensor([0, 0, 1, 1]))] * 3)


@pytest.fixture(scope="module")
def digits():
    return prepare(DataSpec(resize=14, train=60, validation=40, test=60))


@pytest.fixture(scope="module", params=[VECTOR, MATRIX], ids=["vector", "matrix"])
def model(request):
    torch.manual_seed(0)
    return request.param.build().eval()


def test_ranges_of_poses_and_activations_by_a_loop_over_images(model, digits, double):
    model = copy.deepcopy(model).double()
    found = find("class ranges")(model, digits, images=50)
    kinds: dict = {"poses": {}, "activations": {}}
    for n in range(50):
        label = int(digits.train.labels[n])
        with torch.no_grad():
            output = model(digits.train.images[n : n + 1])
        pose = output.poses[0, label]
        kinds["poses"].setdefault(label, []).extend(pose.flatten().tolist())
        kinds["activations"].setdefault(label, []).append(output.scores[0, label].item())
    for kind, values in kinds.items():
        low, high = ([end(values[label]) for label in range(10)] for end in (min, max))
        assert found[kind]["low"] == pytest.approx(low, abs=1e-6)
        assert found[kind]["high"] == pytest.approx(high, abs=1e-6)
        assert found[kind]["alpha"] == pytest.approx([min(low), max(high)], abs=1e-6)


def test_with_all_dimensions_in_turn_the_curve_is_that_of_all_perturbed_pictures(model, digits):
    dim = 4 if isinstance(model.config, CapsNetConfig) else 16
    found = find("perturbed curves")(model, digits, images=12, turns=dim)
    assert ("activations" in found) == (dim == 16), "of capsules that have activations beside their poses"
    split = digits.test.select(torch.arange(12))
    for name, curve in found.items():
        change = "addition" if name == "addition" else "replacement"
        all_of_them = 100 * perturbation.perturbed_accuracy(model, split, curve["values"], change=change)
        assert curve["mean"] == pytest.approx(all_of_them.mean(0).tolist())
        assert curve["lowest"] == pytest.approx(all_of_them.amin(0).tolist())
        assert curve["highest"] == pytest.approx(all_of_them.amax(0).tolist())
    assert found["addition"]["values"] == pytest.approx(perturbation.STEPS)
    assert [found["replacement"]["values"][end] for end in (0, -1)] == pytest.approx(
        find("class ranges")(model, digits)["poses"]["alpha"]
    )


def test_too_few_images_for_all_dimensions_are_a_sentence(digits):
    with pytest.raises(ValueError, match="3 images are too few for each of 4 dimensions to have one: 4 are needed"):
        find("perturbed curves")(VECTOR.build().eval(), digits, images=3)


def test_each_image_has_one_dimension_in_turn(digits):
    """Four dimensions and eight images: dimension d is changed in images d and d + 4."""
    torch.manual_seed(0)
    vector = VECTOR.build().eval()
    found = find("perturbed curves")(vector, digits, images=8)["addition"]
    right = []
    for d in range(4):
        own = digits.test.select(torch.tensor([d, d + 4]))
        right.append(100 * perturbation.perturbed_accuracy(vector, own, perturbation.STEPS, change="addition")[d])
    assert found["mean"] == pytest.approx(torch.stack(right).mean(0).tolist())


def test_entanglement_is_of_the_dimensions_that_move_and_stands_beside_turned_axes():
    torch.manual_seed(0)
    vector = replace(VECTOR, init_scale=3.0).build().eval()
    data = prepare(DataSpec(resize=14, train=60, validation=40, test=60))
    found = find("entanglement")(vector, data, images=3, poses=60, draws=2)
    clouds = pose_clouds(vector, data.test, range(10))

    def effects(axes):
        own = {label: perturbation.pose_directions(cloud, axes) for label, cloud in clouds.items()}
        steps, turned = {n: each.steps() for n, each in own.items()}, {n: each.axes for n, each in own.items()}
        return visual.visual_effects(vector, data.test, steps, classes=10, images=3, directions=turned)

    plain, turned = effects(torch.eye(4)), [effects(visual.random_axes(4, seed=n)) for n in (0, 1)]
    for kind, each in {"dimensions": [plain], "null: random axes": turned}.items():
        mean = sum(visual.moved(e).double().mean().item() for e in each) / len(each)
        assert found["features"][kind] == pytest.approx(mean)
        for threshold, share in zip(found["thresholds"], found["several, %"][kind], strict=True):
            shares = torch.tensor([visual.entangled(e, threshold=threshold) for e in each])
            assert (share is None) == bool(shares.isnan().all())
            assert share is None or share == pytest.approx(100 * shares.nanmean().item())
    assert set(found["features, even reach"]) == {"dimensions", "principal axes", "null: random axes"}
    assert found["cosine"] == pytest.approx(visual.class_agreement(plain).mean().item())


@pytest.mark.parametrize("name", ["entanglement", "known strokes"])
def test_features_and_strokes_are_of_grey_ink(name):
    split = Split(torch.zeros(20, 3, 14, 14, dtype=torch.uint8), torch.arange(20) % 10)
    colour = ImageSet("colour", "", tuple("0123456789"), split, split, split)
    with pytest.raises(ValueError, match=r"3 channels|\(3, 14, 14\)"):
        find(name)(replace(VECTOR, channels=3).build(), colour)


def test_a_set_of_scopes_holds_the_accuracy_of_each_path():
    """One unit for all names one class; that of the image, or of its predicted class, names what the network named."""
    found = find("path scopes")(TwoPaths(), PATHS, units=(1, 4, 9), filters=1.0)
    assert found["k"] == [1, 4] and found["combinations"] == 10 * 2 * 2 and found["whole network, %"] == 100
    cells = {(cell["filters"], cell["units"]): cell for cell in found["cells"]}
    assert len(cells) == 10 and ("each", "each") in cells and ("image", "each") not in cells
    for (filters, units), cell in cells.items():
        if filters != "each":
            assert cell["backward"][0] == (50 if units == "all" else 100)
        # all four units are the whole network, chosen or drawn
        assert cell["backward"][1] == cell["forward"][1] == cell["null: random units"][1] == 100
    assert find("path scopes")(TwoPaths(), PATHS, units=(9, 20))["k"] == [4], "a layer of fewer is taken whole"


def test_swapped_sets_of_known_units():
    found = find("swapped set")(TwoPaths(), PATHS, units=(1, 4))
    assert found["own set"] == [100, 100] and found["the set's class"] == [100, 0]
    assert found["the image's class"] == [0, 100]


def test_shared_units_are_counted_over_pairs(model, digits):
    data = replace(digits, test=digits.test)
    found = find("shared units")(model, data, units=3, images=40)
    ranking = paths.rank(model, digits.validation, paths.Reading(), classes=10)
    sets = sharing.unit_sets(ranking, 3)
    for a in range(10):
        for b in range(10):
            assert found["pairs"][a][b] == len(
                set(sets[a].nonzero().flatten().tolist()) & set(sets[b].nonzero().flatten().tolist())
            )
    assert found["null: chance"] == pytest.approx(9 / sets.shape[1])
    assert found["similarity"] is None or -1 <= found["similarity"] <= 1


def test_a_unit_that_votes_for_one_class_answers_it_whatever_is_shown():
    assert find("lone units")(TwoPaths(), PATHS) == {"one answer, %": 100, "answers": 1}


def test_lone_units_by_a_loop_over_units_and_images(digits):
    torch.manual_seed(0)
    vector = VECTOR.build().eval()
    found, classes = find("lone units")(vector, digits, images=8, units=1000), []
    places = paths.Places.of(vector)
    for unit in range(vector.get_submodule(places.units).capsules):
        seen = set()
        for image in digits.test.images[:8].split(1):
            only = lambda poses, unit=unit: poses * (torch.arange(poses.shape[1]) == unit)[:, None]  # noqa: E731
            with torch.no_grad(), taps.edit(vector, {places.taps(vector)[0]: only}):
                seen.add(int(vector(image).scores.argmax()))
        classes.append(len(seen))
    assert found["answers"] == pytest.approx(sum(classes) / len(classes))
    assert found["one answer, %"] == pytest.approx(100 * classes.count(1) / len(classes))


def test_relevance_is_of_each_heatmap_and_scale(model, digits):
    found = find("relevance")(model, digits, images=6, units=3, cam=2)
    split = digits.test.select(torch.arange(6))
    units = overlap.top_units(model, split.images, paths.Reading(), 3)
    pools = {"absolute": (overlap.pooled, overlap.pooled), "signed": (overlap.signed, overlap.pooled)}
    pools["signed, whole too"] = overlap.signed, overlap.signed
    for name, (part, whole) in pools.items():
        maps = overlap.unit_heatmaps(model, split.images, units, pool=part)
        mask = overlap.class_heatmaps(model, split.images, pool=whole)
        for scale, each in {"class": False, "image": True}.items():
            table = overlap.score_table(overlap.overlap(maps, mask, each=each), split.labels)
            rows = found[name][scale]
            assert rows["spread"]["aggregated"] == pytest.approx((100 * table["aggregated"][1]).tolist(), nan_ok=True)
            for row in ("isolated, first unit", "aggregated", "null: mask area"):
                assert rows[row] == pytest.approx((100 * table[row][0]).tolist(), nan_ok=True)
    assert set(found["Grad-CAM"]) == {"image", "class"} and found["combinations"] == 8
    assert found["thresholds"] == [0.1, 0.25, 0.5]


def test_a_map_s_share_on_strokes_by_hand():
    """Two strokes of two pixels that touch in one: 4 of 10 on ink, its best stroke with half of the shared pixel."""
    maps = torch.tensor([[[[3.0, 1.0, 0.0], [0.0, 6.0, 0.0]]]])
    masks = torch.tensor([[[[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]], [[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]]]])
    ink, stroke = _on_strokes(maps, masks)
    assert_close(ink, torch.tensor([[0.4]]))
    assert_close(stroke, torch.tensor([[3.5 / 4]]))
    even, largest = _on_strokes(torch.ones(1, 1, 2, 3), masks)
    assert_close(even, torch.tensor([[0.5]]))
    assert_close(largest, torch.tensor([[0.5]]))


def test_known_strokes_name_what_an_even_map_has(digits):
    torch.manual_seed(0)
    found = find("known strokes")(VECTOR.build().eval(), digits, images=20, units=2)
    assert set(found) == {
        "right, %",
        *(
            f"{null}{row}"
            for null in ("", "null: whole, ", "null: even, ")
            for row in ("on ink, %", "of that on one stroke, %")
        ),
    }
    assert all(0 <= value <= 100 for value in found.values())
    assert found["null: even, of that on one stroke, %"] >= 100 / 3, "the largest of two or three"
