"""Matrix capsules, Efficient-CapsNet and ResCaps: counts by arithmetic, forward passes by loops, taps."""

from dataclasses import fields, replace

import pytest
import reference
import torch
from test_em import reference as em_by_loops
from torch.testing import assert_close

from capsnb.nn import losses, taps
from capsnb.nn.em import EM
from capsnb.nn.layers import length, squash_exponential
from capsnb.nn.models import ZOO, CapsNetConfig, DepthwiseStem, MatrixCapsNetConfig, ResCapsConfig, matrix
from capsnb.nn.routing import SelfAttention

DOUBLE = torch.float64
MATRIX = MatrixCapsNetConfig(
    size=9, classes=3, width=4, kernel=3, stride=1, padding=0, types=2, layers=((3, 3, 2), (2, 2, 1)),
    decoder_widths=(6,),
)  # fmt: skip
RESCAPS = ResCapsConfig(size=6, classes=3, width=4, kernel=3, types=(3, 2), decoder_widths=(6,))
EFFICIENT = CapsNetConfig(
    size=14, classes=4, dim=3, routing=SelfAttention(), squash="exponential", decoder_widths=(6,),
    stem=DepthwiseStem(widths=(3, 4), kernels=(3, 3, 2), strides=(1, 1, 2), capsules=3, dim=2, pointwise=False),
)  # fmt: skip
TINY = {"matrix": MATRIX, "rescaps": RESCAPS, "efficient": EFFICIENT}


def make(config, dtype=DOUBLE, seed=0):
    torch.manual_seed(seed)
    return config.build().to(dtype)


def images_for(config, batch=3, dtype=DOUBLE):
    shape = (batch, config.channels, config.size, config.size)
    return torch.rand(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(1)).to(dtype)


def count(config):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in config.build().parameters())


# ---------------------------------------------------------------- parameter counts


def em_parameters(width, types, convolutional, classes, channels=1):
    """Convolution, poses and activations of the primary capsules, 4x4 transforms, two betas per type of parent."""
    first = (25 * channels + 1) * width + (width + 1) * types * 17
    second = 9 * types * convolutional * 16 + 2 * convolutional
    third = 9 * convolutional * convolutional * 16 + 2 * convolutional
    return first + second + third + convolutional * classes * 16 + 2 * classes


DECODER = 161 * 512 + 513 * 1024 + 1025 * 784


def test_matrix_capsules_by_arithmetic():
    assert ZOO["em-32"].parameters == em_parameters(32, 32, 32, 10)
    assert ZOO["em-16"].parameters == em_parameters(64, 8, 16, 10)
    assert ZOO["em-12"].parameters == em_parameters(12, 12, 12, 10) + 24 + DECODER  # batch norm
    # printed: 310K on smallNORB, 5 classes of 32 x 32 pixels; a second camera would make it 317,194
    config = replace(ZOO["em-32"].config, size=32, padding=0, classes=5)
    assert count(config) == em_parameters(32, 32, 32, 5) == 316_394
    maps = [make(each, torch.float32).primary.grid for each in (config, ZOO["em-32"].config)]
    assert maps == [(14, 14, 32)] * 2


def test_efficient_capsnet_has_161_thousand_parameters():
    convolutions = 26 * 32 + (32 * 9 + 1) * 64 + (64 * 9 + 1) * 64 + (64 * 9 + 1) * 128
    norms = 2 * (32 + 64 + 64 + 128)
    depthwise, transforms, prior = 82 * 128, 16 * 8 * 10 * 16, 16 * 10
    total = convolutions + norms + depthwise + transforms + prior
    assert total == 161_824 == ZOO["efficient-capsnet-no-decoder"].parameters
    assert ZOO["efficient-capsnet"].parameters == total + DECODER


def test_rescaps_by_arithmetic():
    total, features = 26 * 32 + 64, 32
    for types in (32, 32, 32, 8):
        places, maps = 9 * types, 17 * types
        layer = places * 16 + places * 16 * places + places * 17 * maps + 2 * (places + maps)
        total, features = total + (features + 1) * types * 16 + 2 * layer + 2 * maps, maps
    classes = (features * 4 + 1) * 160 + 10 * 16 + 160 * 10 + 20
    assert ZOO["rescaps"].parameters == total + classes + DECODER


# ---------------------------------------------------------------- what every model does


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("decoder", ["conditional", "none"])
def test_a_tiny_model_runs_forward_and_backward(name, channels, decoder):
    config = replace(TINY[name], channels=channels, decoder=decoder)
    model, images, labels = make(config), images_for(config), torch.tensor([0, 1, 2])
    out = model(images, labels)
    assert out.scores.shape == (3, config.classes) and (out.scores > 0).all() and (out.scores < 1).all()
    assert out.poses.shape[:2] == (3, config.classes)
    loss = losses.spread(out.scores, labels).sum()
    if decoder == "none":
        assert out.reconstruction is None
    else:
        assert out.reconstruction.shape == images.shape
        loss = loss + losses.reconstruction(out.reconstruction, images).sum()
        best = model.eval()(images)
        assert_close(best.reconstruction, model(images, best.scores.argmax(1)).reconstruction)
        pairs = torch.tensor([[0, 1], [1, 2], [2, 0]])
        assert model(images, pairs).reconstruction.shape == (3, 2, *images.shape[1:])
    loss.backward()
    lost = [key for key, value in model.named_parameters() if value.grad is None or not value.grad.isfinite().all()]
    # without a decoder nothing reads ResCaps' activations of its next to last layers
    assert not lost


@pytest.mark.parametrize("name", TINY)
def test_images_of_a_batch_do_not_hear_each_other_and_bytes_are_pixels(name):
    model, images = make(TINY[name], torch.float32).eval(), images_for(TINY[name], dtype=torch.float32)
    with torch.no_grad():
        together = model(images).scores
        assert_close(together, torch.cat([model(image[None]).scores for image in images]))
        stored = (images * 255).to(torch.uint8)
        assert_close(model(stored).scores, model(stored.float() / 255).scores)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_black_and_white_images_have_finite_values_and_gradients(name, value):
    model = make(TINY[name], torch.float32)
    images = torch.full_like(images_for(TINY[name], dtype=torch.float32), value)
    out = model(images, torch.tensor([0, 1, 2]))
    (out.scores.sum() + out.reconstruction.sum()).backward()
    assert all(part.isfinite().all() for part in out)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("name", TINY)
def test_every_tap_is_passed_and_every_edit_is_heard(name):
    model, images = make(TINY[name]).eval(), images_for(TINY[name])
    with torch.no_grad():
        before = model(images)
        with taps.record(model, *taps.names(model)) as seen:
            during = model(images)
        for first, second in zip(before, during, strict=True):
            assert_close(first, second)
        assert all(seen[tap].isfinite().all() for tap in taps.names(model))
        for tap in taps.names(model):
            with taps.edit(model, {tap: lambda t: t * 0.5 + 0.01}):
                after = model(images)
            changed = [not torch.allclose(a, b) for a, b in zip(before, after, strict=True)]
            unread = name == "rescaps" and tap in ("caps1.activations", "caps3.activations")
            assert any(changed) != unread, tap


def test_gradients_of_many_units_come_in_one_batched_call():
    for config in (MATRIX, RESCAPS, EFFICIENT):
        model, image = make(config).eval(), images_for(config, 1).requires_grad_()
        units = model(image).scores[0]
        own = torch.eye(len(units), dtype=DOUBLE)
        (batched,) = torch.autograd.grad(units, image, own, is_grads_batched=True, retain_graph=True)
        one_by_one = [torch.autograd.grad(unit, image, retain_graph=True)[0] for unit in units]
        assert_close(batched, torch.stack(one_by_one))


@pytest.mark.parametrize("name", TINY)
def test_bad_images_are_named(name):
    with pytest.raises(ValueError, match="images"):
        make(TINY[name])(torch.zeros(2, 1, 30, 30))
    with pytest.raises(ValueError, match="too small"):
        replace(TINY[name], size=2).build()


# ---------------------------------------------------------------- matrix capsules


def test_the_taps_of_matrix_capsules():
    model, images = make(MATRIX), images_for(MATRIX, 2)
    with torch.no_grad(), taps.record(model, *taps.names(model)) as seen:
        out = model(images)
    assert {name: tuple(tensor.shape) for name, tensor in seen.items()} == {
        "conv1": (2, 4, 7, 7), "primary": (2, 98, 16), "primary.activations": (2, 98),
        "caps1.votes": (2, 9, 18, 3, 16), "caps1.coupling": (2, 9, 18, 3), "caps1.poses": (2, 27, 16),
        "caps1.activations": (2, 27), "caps2.votes": (2, 4, 12, 2, 16), "caps2.coupling": (2, 4, 12, 2),
        "caps2.poses": (2, 8, 16), "caps2.activations": (2, 8), "class.votes": (2, 8, 3, 16),
        "class.coupling": (2, 8, 3), "class.poses": (2, 3, 16), "class.activations": (2, 3),
        "reconstruction": (2, 1, 9, 9),
    }  # fmt: skip
    assert torch.equal(out.scores, seen["class.activations"]) and torch.equal(out.poses, seen["class.poses"])
    assert model.layers == ["caps1", "caps2", "class"] and model.caps1.grid == (3, 3, 3)


def test_a_dense_coupling_has_each_child_and_parent_in_its_place():
    model, images = make(MATRIX), images_for(MATRIX, 2)
    with torch.no_grad(), taps.record(model, "caps1.coupling", "class.coupling") as seen:
        model(images)
    dense = model.caps1.dense(seen["caps1.coupling"])
    assert dense.shape == (2, 98, 27)
    assert_close(dense.sum(-1), torch.ones(2, 98, dtype=DOUBLE))  # 7 places of stride 2 leave no child unseen
    at, place, kind = 4, 7, 2  # the middle window starts at row and column 2; place 7 is row 1, column 0, type 1
    child, parent = ((2 + 1) * 7 + 2 + 0) * 2 + 1, at * 3 + kind
    assert torch.equal(dense[:, child, parent], seen["caps1.coupling"][:, at, place, kind])
    assert dense[:, 0, 3:].abs().sum() == 0  # the first child is in the first window alone
    assert model.get_submodule("class").dense(seen["class.coupling"]) is seen["class.coupling"]


def slow_votes(layer, poses, size, types):
    """Pose matrix times transform, one child, parent, row and column at a time. -> votes[l][n][c][h] and child[l][n]"""
    kernel, stride = layer.kernel or size, layer.stride
    votes, child = [], []
    for top in range(0, size - kernel + 1, stride):
        for left in range(0, size - kernel + 1, stride):
            window, children = [], []
            for y in range(kernel):
                for x in range(kernel):
                    for kind in range(types):
                        index = ((top + y) * size + left + x) * types + kind
                        transform = layer.weight[(y * kernel + x) * types + kind if layer.kernel else kind]
                        made = [poses[index].reshape(4, 4) @ transform[:, c] for c in range(transform.shape[1])]
                        if layer.offset is not None:
                            for matrix_vote in made:
                                matrix_vote[0, 3] += (top + y + 0.5) / size
                                matrix_vote[1, 3] += (left + x + 0.5) / size
                        window.append(torch.stack([each.flatten() for each in made]))
                        children.append(index)
            votes.append(torch.stack(window))
            child.append(children)
    return torch.stack(votes), child


@pytest.mark.parametrize("iterations", [1, 3])
def test_a_whole_network_follows_the_loops(iterations):
    config = replace(MATRIX, layers=((2, 3, 2),), routing=EM(iterations=iterations), decoder="none")
    model, images = make(config).eval(), images_for(config, 1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".beta" in name:
                parameter.add_(torch.randn_like(parameter))
        with taps.record(model, *taps.names(model)) as seen:
            out = model(images)
        poses, active = seen["primary"][0], seen["primary.activations"]
        size, types = 7, 2
        for name in model.layers:
            layer = model.get_submodule(name)
            votes, child = slow_votes(layer, poses, size, types)
            assert_close(seen[f"{name}.votes"][0].reshape(votes.shape), votes)
            slow = em_by_loops(votes[None], active, child, layer.beta_u, layer.beta_a, config.routing)
            assert_close(seen[f"{name}.coupling"].reshape(slow[0].shape), slow[0])
            poses, active, size, types = slow[1].flatten(0, 2), slow[2].flatten(1), 3, 2
        assert_close(out.poses[0], poses)
        assert_close(out.scores, active)


@pytest.mark.parametrize("remade", [False, True])
def test_routing_a_few_images_at_a_time_changes_nothing(remade, monkeypatch):
    found = []
    for small in (False, True):
        if small:
            monkeypatch.setattr(matrix, "AT_ONCE", 1)
            monkeypatch.setattr(matrix, "KEPT", 1 if remade else 10**9)
        model, images = make(MATRIX), images_for(MATRIX)
        out = model(images, torch.tensor([0, 1, 2]))
        (out.scores.sum() + out.reconstruction.square().sum()).backward()
        found.append([*out, *(parameter.grad for parameter in model.parameters())])
    for whole, parts in zip(*found, strict=True):
        assert_close(whole, parts)


def test_a_capsule_that_is_taken_away_does_not_vote():
    """By its activation: a pose of zeros, which is what vector capsules lose, would still vote for zeros."""
    model, images = make(MATRIX).eval(), images_for(MATRIX)
    with torch.no_grad():
        everything = torch.ones(8)
        with model.caps2.keep(everything):
            assert_close(model(images).scores, model(images).scores)
        only = torch.zeros(8)
        only[3] = 1
        with model.caps2.keep(only), taps.record(model, "class.votes", "class.poses") as seen:
            model(images)
        assert_close(seen["class.poses"], seen["class.votes"][:, 3])
        with model.caps2.keep(everything * 0):
            nothing = model(images)
        layer = model.get_submodule("class")
        steep = 100 * MATRIX.routing.inverse_temperature(2)
        assert_close(nothing.scores, (steep * layer.beta_a).sigmoid().expand(3, 3))


def test_an_edited_coupling_makes_the_poses():
    model, images = make(MATRIX).eval(), images_for(MATRIX)

    def first_child_alone(coupling):
        edited = torch.zeros_like(coupling)
        edited[:, 0] = 1
        return edited

    with (
        torch.no_grad(),
        taps.edit(model, {"class.coupling": first_child_alone}),
        taps.record(model, "class.votes", "class.poses") as seen,
    ):
        model(images)
    assert_close(seen["class.poses"], seen["class.votes"][:, 0])


CHANGED = {
    "matrix": {
        "channels": 2, "size": 11, "classes": 4, "width": 5, "kernel": 5, "stride": 2, "padding": 2,
        "batch_norm": False, "types": 3, "layers": ((3, 3, 2), (2, 3, 1)), "side": 3, "routing": EM(iterations=2),
        "coordinates": False, "init_scale": 1.0, "decoder": "plain", "decoder_widths": (7,),
    },
    "rescaps": {
        "channels": 2, "size": 9, "classes": 4, "width": 5, "kernel": 5, "types": (2, 2), "decoder": "plain",
        "decoder_widths": (7,),
    },
}  # fmt: skip


@pytest.mark.parametrize(("name", "field"), [(name, field) for name in CHANGED for field in CHANGED[name]])
def test_every_field_of_a_configuration_matters(name, field):
    assert set(CHANGED[name]) == {each.name for each in fields(TINY[name])}, "a new field needs a changed value here"
    base = replace(TINY[name], layers=((3, 2, 1),)) if field == "stride" else TINY[name]
    found = []
    for config in (base, replace(base, **{field: CHANGED[name][field]})):
        model = make(config)
        shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        found.append((shapes, images_for(config).shape, model(images_for(config), torch.tensor([0, 1, 2]))))
    (first, one, before), (second, two, after) = found
    if first == second and one == two:
        assert any(a.shape != b.shape or not torch.allclose(a, b) for a, b in zip(before, after, strict=True))


ROUTED = {"iterations": 2, "final": 0.02, "floor": 1e-2, "rivals": "position", "cancels": True}


@pytest.mark.parametrize("field", ROUTED)
def test_every_field_of_the_routing_reaches_the_model(field):
    assert set(ROUTED) == {each.name for each in fields(EM)}, "a new field needs a changed value here"
    changed = replace(MATRIX, routing=EM(**{field: ROUTED[field]}))
    images = images_for(MATRIX)
    assert not torch.allclose(make(MATRIX)(images).scores, make(changed)(images).scores)


@pytest.mark.parametrize(
    ("config", "bad", "sentence"),
    [
        (MATRIX, {"types": 0}, "types = 0"),
        (MATRIX, {"side": 1}, "side = 1"),
        (MATRIX, {"layers": ((3, 3),)}, "each is .types, kernel, stride."),
        (MATRIX, {"layers": ((3, 8, 1),)}, "too small"),
        (MATRIX, {"decoder": "upside"}, "upside"),
        (RESCAPS, {"types": ()}, "at least one stage"),
        (RESCAPS, {"kernel": 4}, "kernel = 4"),
    ],
)
def test_a_wrong_value_is_named(config, bad, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        replace(config, **bad).build()
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- Efficient-CapsNet


def test_self_attention_follows_the_loops():
    made = torch.Generator().manual_seed(0)
    votes, prior = (torch.randn(*shape, dtype=DOUBLE, generator=made) for shape in ((2, 5, 3, 4), (5, 3)))
    expected = torch.zeros(2, 5, 3, dtype=DOUBLE)
    for b in range(2):
        for i in range(5):
            logits = [
                sum(reference.dot(votes[b, i, j], votes[b, k, j]) for k in range(5)) / torch.tensor(2.0).double()
                for j in range(3)
            ]
            expected[b, i] = torch.stack(reference.softmax(logits)) + prior[i]
    assert_close(SelfAttention()(votes, None, prior), expected)
    assert_close(SelfAttention()(votes, None), expected - prior)
    assert_close(SelfAttention()(votes, None).sum(-1), torch.ones(2, 5, dtype=DOUBLE))
    with pytest.raises(ValueError, match=r"the prior has shape \(3, 5\)"):
        SelfAttention()(votes, None, prior.T)


def test_efficient_capsnet_sums_its_votes_by_attention():
    model, images = make(EFFICIENT), images_for(EFFICIENT)
    layer = model.get_submodule("class")
    with torch.no_grad():
        layer.prior.normal_()
        with taps.record(model, "primary", "class.votes", "class.coupling", "class.poses") as seen:
            out = model(images)
        votes = torch.einsum("bip,ipjd->bijd", seen["primary"], layer.weight)
        assert_close(seen["class.votes"], votes)
        coupling = SelfAttention()(votes, None, layer.prior)
        poses = squash_exponential((coupling[..., None] * votes).sum(1))
    assert_close(seen["class.coupling"], coupling)
    assert_close(out.poses, poses)
    assert_close(out.scores, length(poses))


def test_its_primary_capsules_have_no_pointwise_convolution():
    model, images = make(EFFICIENT), images_for(EFFICIENT)
    with torch.no_grad(), taps.record(model, "conv3", "primary") as seen:
        model(images)
    maps, primary = seen["conv3"], model.primary
    features = (maps * primary.depthwise.weight[:, 0]).sum((2, 3)) + primary.depthwise.bias
    assert_close(seen["primary"], squash_exponential(features.unflatten(1, (3, 2))))


# ---------------------------------------------------------------- ResCaps


def test_the_taps_of_rescaps():
    model, images = make(RESCAPS), images_for(RESCAPS, 2)
    with torch.no_grad(), taps.record(model, *taps.names(model)) as seen:
        out = model(images)
    assert {name: tuple(tensor.shape) for name, tensor in seen.items()} == {
        "conv1": (2, 4, 6, 6), "primary": (2, 27, 16), "caps1.votes": (2, 9, 27, 16), "caps1.poses": (2, 27, 16),
        "caps1.activations": (2, 27), "caps2.votes": (2, 9, 27, 16), "caps2.poses": (2, 27, 16),
        "caps2.activations": (2, 27), "primary2": (2, 8, 16), "caps3.votes": (2, 4, 18, 16),
        "caps3.poses": (2, 8, 16), "caps3.activations": (2, 8), "caps4.votes": (2, 4, 18, 16),
        "caps4.poses": (2, 8, 16), "caps4.activations": (2, 8), "class.poses": (2, 3, 16),
        "class.activations": (2, 3), "reconstruction": (2, 1, 6, 6),
    }  # fmt: skip
    assert torch.equal(out.scores, seen["class.activations"]) and torch.equal(out.poses, seen["class.poses"])
    with pytest.raises(ValueError, match="has no tap"), taps.record(model, "class.coupling"):
        pass


def test_votes_are_poses_times_one_plus_the_weight():
    model, images = make(RESCAPS).eval(), images_for(RESCAPS, 1)
    with torch.no_grad(), taps.record(model, "primary", "caps1.votes") as seen:
        model(images)
    poses, votes = seen["primary"][0].reshape(3, 3, 3, 4, 4), seen["caps1.votes"][0]
    weight, zero = model.caps1.weight, torch.zeros(16, dtype=DOUBLE)
    for at in range(9):
        for place in range(27):
            (row, column), (ky, kx, kind) = divmod(at, 3), (place // 9, place // 3 % 3, place % 3)
            y, x = row + ky - 1, column + kx - 1
            inside = 0 <= y < 3 and 0 <= x < 3
            expected = (poses[y, x, kind] @ (weight[place] + 1)).flatten() if inside else zero
            assert_close(votes[at, place], expected)


def test_a_layer_of_rescaps_by_plain_operations():
    model, images = make(RESCAPS), images_for(RESCAPS, 2)
    layer = model.caps1
    with torch.no_grad(), taps.record(model, "caps1.votes", "caps1.poses", "caps1.activations") as seen:
        model(images)
        votes = seen["caps1.votes"].reshape(18, 27 * 16)

        def normal(x):
            return (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt()

        active = normal(votes @ layer.active.weight.T).sigmoid()
        fused = normal(torch.cat((votes, active), 1) @ layer.fuse.weight.T).clamp(min=0).reshape(2, 9, 51)
    assert_close(seen["caps1.poses"], fused[..., :48].reshape(2, 27, 16))
    assert_close(seen["caps1.activations"], fused[..., 48:].reshape(2, 27))


def test_what_rescaps_keeps():
    model, images = make(RESCAPS).eval(), images_for(RESCAPS)
    mask = torch.tensor([1, 0, 0] * 9)
    with torch.no_grad():
        with model.caps2.keep(mask), taps.record(model, "caps2.poses", "caps2.activations") as seen:
            model(images)
        for tap in ("poses", "activations"):
            assert (seen[f"caps2.{tap}"][:, mask == 0] == 0).all()
        with model.primary.keep(mask * 0), taps.record(model, "caps1.votes") as seen:
            model(images)
        assert (seen["caps1.votes"] == 0).all()
        with model.get_submodule("class").keep(torch.tensor([0, 1, 0])), taps.record(model, "class.poses") as seen:
            model(images)
        assert (seen["class.poses"][:, [0, 2]] == 0).all()
