from dataclasses import fields, replace
from itertools import pairwise

import pytest
import reference
import torch
from torch.testing import assert_close

from capsnb.nn import layers, losses, taps
from capsnb.nn.models import (
    ZOO,
    CapsNetConfig,
    ConvNetAvgConfig,
    ConvNetFCConfig,
    ConvNetRConfig,
    DepthwiseStem,
    StridedStem,
)
from capsnb.nn.routing import Dynamic, Uniform

DOUBLE = torch.float64
KERNELS = (3, 5, 7, 9, 11)


def built(config):
    """The model without its memory: shapes alone."""
    with torch.device("meta"):
        return config.build()


def count(config):
    return sum(parameter.numel() for parameter in built(config).parameters())


# ---------------------------------------------------------------- parameter counts by arithmetic (PROTOCOLS A-5)


def conv(inputs, outputs, kernel):
    return outputs * inputs * kernel * kernel + outputs


def dense(*sizes):
    return sum(a * b + b for a, b in pairwise(sizes))


def capsules(size, kernel, types=32):
    """How many primary capsules: VALID convolutions of stride 1, then 2."""
    side = (size - kernel + 1 - kernel) // 2 + 1
    return types * side * side


def capsnet(size, kernel=9, *, shared=False, decoder=True, channels=1):
    transforms = (1 if shared else capsules(size, kernel)) * 8 * 160
    pictures = dense(160, 512, 1024, channels * size * size) if decoder else 0
    return conv(channels, 256, kernel) + conv(256, 256, kernel) + transforms + pictures


def convnet_fc(map_size, kernel=5, hidden=(328, 192)):
    stages = conv(1, 256, kernel) + conv(256, 256, kernel) + conv(256, 128, kernel)
    return stages + dense(128 * map_size**2, *hidden, 10)


def test_capsnet_on_mnist():
    assert capsnet(28, decoder=False) == 6_804_224 and capsnet(28) == 8_215_568
    assert count(CapsNetConfig(decoder="none")) == 6_804_224
    assert count(CapsNetConfig()) == 8_215_568


def test_capsnet_on_multimnist():
    assert capsnet(36) == 11_361_808 == count(CapsNetConfig(size=36))


TABLE = {  # K: primary capsules, CapsNet, Aff-CapsNet, ConvNet-FC in millions as PROTOCOLS A-5 prints them
    3: (10_368, "16.11", "2.84", "49.49"),
    5: (8_192, "14.38", "3.89", "35.45"),
    7: (6_272, "13.50", "5.47", "25.22"),
    9: (4_608, "13.48", "7.58", "18.80"),
    11: (3_200, "14.31", "10.21", "16.19"),
}
EXACT = {  # CapsNet, Aff-CapsNet, ConvNet-FC, by the arithmetic above
    3: (16_111_424, 2_841_664, 49_486_610),
    5: (14_378_816, 3_894_336, 35_445_522),
    7: (13_500_224, 5_473_344, 25_215_762),
    9: (13_475_648, 7_578_688, 18_797_330),
    11: (14_305_088, 10_210_368, 16_190_226),
}


@pytest.mark.parametrize("kernel", KERNELS)
def test_capsule_networks_at_40x40_have_the_counts_of_table_3(kernel):
    primary, ours, shared, _ = TABLE[kernel]
    assert capsules(40, kernel) == primary
    assert (capsnet(40, kernel), capsnet(40, kernel, shared=True)) == EXACT[kernel][:2]
    assert f"{capsnet(40, kernel) / 1e6:.2f}" == ours and f"{capsnet(40, kernel, shared=True) / 1e6:.2f}" == shared
    config = CapsNetConfig(size=40, stem=StridedStem(kernel=kernel))
    assert count(config) == capsnet(40, kernel)
    assert count(replace(config, shared=True)) == capsnet(40, kernel, shared=True)
    assert count(replace(config, routing=Uniform())) == capsnet(40, kernel)  # NoR has the same parameters
    assert built(config).primary.capsules == primary


@pytest.mark.parametrize("kernel", KERNELS)
def test_convnet_fc_at_40x40_has_the_counts_of_table_3(kernel):
    exact = convnet_fc(40 - 3 * (kernel - 1), kernel)
    assert exact == EXACT[kernel][2] and f"{exact / 1e6:.2f}" == TABLE[kernel][3]
    assert count(ConvNetFCConfig(size=40, kernel=kernel)) == exact


def test_sabours_baseline_has_the_same_count_as_convnet_fc_at_40x40():
    assert count(ConvNetFCConfig(size=28, padding="same")) == convnet_fc(28) == 35_445_522


@pytest.mark.parametrize(
    ("kernel", "exact"), [(3, 595_210), (5, 1_647_882), (7, 3_226_890), (9, 5_332_234), (11, 7_963_914)]
)
def test_convnet_avg_has_the_counts_of_table_3(kernel, exact):
    assert conv(1, 256, kernel) + conv(256, 256, kernel) + dense(256, 10) == exact
    assert count(ConvNetAvgConfig(size=40, kernel=kernel)) == exact


def test_convnet_lk_stays_below_capsnet_and_wider_layers_would_not():
    config = ZOO["convnet-fc-lk-36"].config
    exact = convnet_fc(36 - 3 * (config.kernel - 1), config.kernel, config.hidden)
    assert config.kernel == 9 and count(config) == exact <= capsnet(36)
    wider = tuple(width + 1 for width in config.hidden)
    assert convnet_fc(12, 9, wider) > capsnet(36)


def test_the_convnets_of_section_3_3():
    # FC(160) without bias stands for the transforms: 1,152 capsules of 8 to 160, then the decoder as CapsNet's
    assert count(ConvNetRConfig(head="sum")) == count(ConvNetRConfig(head="length")) == capsnet(28)
    assert count(ConvNetRConfig(head="linear", decoder="plain")) == capsnet(28) + dense(160, 10)


def test_the_deep_network_of_paper_4():
    stem = conv(1, 32, 5) + conv(32, 64, 3) + conv(64, 128, 3) + conv(128, 128, 3) + 2 * (32 + 64 + 128 + 128)
    stem += conv(1, 128, 15) + conv(128, 128, 1)  # depthwise over the 15x15 map, then 1x1
    routed = 3 * (16 * 8 * 16 * 8 + 16 * 16) + 16 * 8 * 10 * 8 + 16 * 10  # transforms and learned priors
    assert stem + routed + dense(80, 512, 1024, 1600) == 2_554_016 == ZOO["deep-rba-40"].parameters


@pytest.mark.parametrize("name", ZOO)
def test_every_entry_of_the_zoo_has_the_parameters_it_says(name):
    entry = ZOO[name]
    assert count(entry.config) == entry.parameters
    assert entry.loss in losses.LOSSES and entry.paper


# ---------------------------------------------------------------- tiny models

STRIDED = StridedStem(channels=3, kernel=3, types=2, dim=3)
DEPTHWISE = DepthwiseStem(widths=(3, 4), kernels=(3, 3, 2), strides=(1, 1, 2), capsules=3, dim=2)
TINY = {
    "capsnet": CapsNetConfig(size=9, classes=4, dim=3, stem=STRIDED, decoder_widths=(6, 5)),
    "deep": CapsNetConfig(
        size=9, classes=4, dim=3, stem=STRIDED, hidden=((4, 2), (3, 3)), decoder_widths=(6,), squash="exponential",
        routing=Dynamic(learned_prior=True),
    ),
    "global": CapsNetConfig(size=10, classes=4, dim=3, stem=DEPTHWISE, hidden=((3, 2),), decoder="none"),
    "nor": CapsNetConfig(size=9, classes=4, dim=3, stem=STRIDED, decoder="plain", decoder_widths=(6,),
                         routing=Uniform(value="1/I")),
    "aff": CapsNetConfig(size=9, classes=4, dim=3, stem=STRIDED, shared=True, decoder="none", bias=0.1),
    "unsquashed": CapsNetConfig(size=9, classes=4, dim=3, stem=STRIDED, squash="none", decoder="none"),
    "fc": ConvNetFCConfig(size=9, classes=4, widths=(3, 2), kernel=3, hidden=(6, 5)),
    "fc-same": ConvNetFCConfig(size=9, classes=4, widths=(3, 2), kernel=3, hidden=(6, 5), padding="same"),
    "avg": ConvNetAvgConfig(size=9, classes=4, width=6, kernel=3),
    "r": ConvNetRConfig(size=9, classes=4, width=6, kernel=3, dim=3, primary_dim=3, head="linear", decoder="plain",
                        decoder_widths=(6,)),
    "cr": ConvNetRConfig(size=9, classes=4, width=6, kernel=3, dim=3, primary_dim=3, head="sum", decoder_widths=(6,)),
    "cr-sf": ConvNetRConfig(size=9, classes=4, width=6, kernel=3, dim=3, primary_dim=3, decoder_widths=(6,)),
}  # fmt: skip


def make(config, dtype=DOUBLE, seed=0):
    torch.manual_seed(seed)
    return config.build().to(dtype)


def images_for(config, batch=3, dtype=DOUBLE, seed=1):
    shape = (batch, config.channels, config.size, config.size)
    return torch.rand(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed)).to(dtype)


def total_loss(out, labels, images):
    loss = losses.margin(out.scores, labels).sum()
    return loss if out.reconstruction is None else loss + losses.reconstruction(out.reconstruction, images).sum()


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("extra", [0, 2, 3])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_tiny_model_runs_forward_and_backward(name, channels, extra, batch):
    config = replace(TINY[name], channels=channels, size=TINY[name].size + extra)
    model, images, labels = make(config), images_for(config, batch), torch.arange(batch) % 4
    out = model(images, labels)
    total_loss(out, labels, images).backward()
    assert out.scores.shape == (batch, 4) and out.scores.isfinite().all()
    if out.poses is not None:
        assert out.poses.shape[:2] == (batch, 4)
    if model_has_decoder(config):
        assert out.reconstruction.shape == images.shape
        assert out.reconstruction.min() >= 0 and out.reconstruction.max() <= 1
    else:
        assert out.reconstruction is None
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), parameter_name


def model_has_decoder(config):
    return getattr(config, "decoder", "none") != "none"


@pytest.mark.parametrize("name", TINY)
def test_images_of_a_batch_do_not_hear_each_other(name):
    model, images = make(TINY[name]).eval(), images_for(TINY[name])
    with torch.no_grad():
        together, alone = model(images), [model(image[None]) for image in images]
    assert_close(together.scores, torch.cat([one.scores for one in alone]))


@pytest.mark.parametrize("name", TINY)
def test_bytes_are_the_pixels_they_stand_for(name):
    model = make(TINY[name], torch.float32).eval()
    images = (images_for(TINY[name]) * 255).to(torch.uint8)
    with torch.no_grad():
        assert_close(model(images).scores, model(images.float() / 255).scores)


@pytest.mark.parametrize("name", TINY)
def test_an_image_of_another_shape_is_named(name):
    config, model = TINY[name], make(TINY[name])
    for shape in ((2, 1, config.size + 1, config.size + 1), (2, 3, config.size, config.size), (config.size,) * 2):
        with pytest.raises(ValueError, match="images") as error:
            model(torch.zeros(shape, dtype=DOUBLE))
        assert str(config.size) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", TINY)
def test_images_too_small_for_the_kernels_are_named(name):
    with pytest.raises(ValueError, match="too small") as error:
        replace(TINY[name], size=2).build()
    assert "2" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, "autocast"])
def test_black_and_white_images_have_finite_values_and_gradients(name, value, dtype):
    config = TINY[name]
    model = make(config, torch.float32 if dtype == "autocast" else dtype)
    images = torch.full((2, config.channels, config.size, config.size), value, dtype=next(model.parameters()).dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "autocast"):
        out = model(images, torch.tensor([0, 1]))
    total_loss(out, torch.tensor([0, 1]), images).backward()
    assert all(part is None or part.isfinite().all() for part in out)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("name", ["capsnet", "deep", "global", "aff"])
def test_a_network_that_sees_nothing_at_all_has_finite_gradients(name):
    model = make(TINY[name], torch.float32)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("bias"):
                parameter.zero_()
    images = torch.zeros(2, 1, TINY[name].size, TINY[name].size)
    out = model(images, torch.tensor([0, 1]))
    assert torch.equal(out.scores, torch.zeros(2, 4))
    total_loss(out, torch.tensor([0, 1]), images).backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("name", ["capsnet", "deep", "global", "cr-sf"])
def test_poses_stay_float32_under_autocast(name):
    model, images = make(TINY[name], torch.float32).eval(), images_for(TINY[name], dtype=torch.float32)
    wanted = [tap for tap in taps.names(model) if tap == "primary" or tap.endswith((".coupling", ".poses"))]
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16), taps.record(model, *wanted) as seen:
        out = model(images)
    assert {tap: seen[tap].dtype for tap in wanted} == dict.fromkeys(wanted, torch.float32)
    assert out.scores.dtype == torch.float32


# ---------------------------------------------------------------- whole networks by loops


def slow_convolution(layer, maps, stride, *, relu):
    out = reference.convolution(maps, layer.weight.detach(), layer.bias.detach(), stride)
    return out.clamp(min=0) if relu else out


def slow_decoder(decoder, seen):
    *inner, last = decoder.linears
    for linear in inner:
        seen = reference.dense(seen, linear.weight, linear.bias, "relu")
    return reference.dense(seen, last.weight, last.bias, "sigmoid").reshape(len(seen), *decoder.image_shape)


def slow_capsnet(model, config, images, labels=None):
    """A capsule network with the strided stem, from the papers: couplings, class poses, pictures."""
    squash = reference.SQUASHES[config.squash]
    maps = slow_convolution(model.conv1[0], images, 1, relu=True)
    features = slow_convolution(model.primary.conv, maps, 2, relu=False)
    poses, couplings = reference.primary(features, config.stem.types, config.stem.dim, squash), []
    for name in [*(f"caps{n}" for n in range(1, len(config.hidden) + 1)), "class"]:
        layer = model.get_submodule(name)
        votes = reference.votes(poses, layer.weight.detach())
        prior = None if layer.prior is None else layer.prior.detach()
        bias = None if layer.bias is None else layer.bias.detach()
        if isinstance(config.routing, Uniform):
            couplings.append(torch.full(votes.shape[:3], 1 / votes.shape[1], dtype=DOUBLE))
        else:
            options = {"prior": prior, "squash": squash, "bias": bias}
            couplings.append(reference.procedure_1(votes, config.routing.iterations, **options))
        poses = reference.weighted_sum(couplings[-1], votes, squash, bias)
    seen = poses.flatten(1)
    if config.decoder == "conditional":
        seen = reference.masked(poses, reference.longest(poses) if labels is None else labels)
    return couplings, poses, None if config.decoder == "none" else slow_decoder(model.decoder, seen)


@pytest.mark.parametrize("name", ["capsnet", "deep", "nor", "aff", "unsquashed"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("labels", [None, [3, 1]])
def test_a_whole_capsule_network_follows_the_loops(name, channels, labels):
    config = replace(TINY[name], channels=channels)
    model, images = make(config), images_for(config, 2)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("prior"):
                parameter.normal_()
        asked = [tap for tap in taps.names(model) if tap.endswith(".coupling")]
        with taps.record(model, *asked) as seen:
            out = model(images, None if labels is None else torch.tensor(labels))
        couplings, poses, pictures = slow_capsnet(model, config, images, labels)
    for tap, coupling in zip(asked, couplings, strict=True):
        assert_close(seen[tap], coupling)
    assert_close(out.poses, poses)
    assert_close(out.scores, reference.lengths(poses))
    if pictures is None:
        assert out.reconstruction is None
    else:
        assert_close(out.reconstruction, pictures)


def test_two_labels_give_two_pictures():
    model, images = make(TINY["capsnet"]), images_for(TINY["capsnet"], 2)
    labels = torch.tensor([[0, 1], [3, 2]])
    with torch.no_grad():
        both = model(images, labels).reconstruction
        assert both.shape == (2, 2, 1, 9, 9)
        for m in range(2):
            assert_close(both[:, m], model(images, labels[:, m]).reconstruction)


def test_the_longest_capsule_masks_the_decoder_without_labels_in_training_mode_too():
    model, images = make(TINY["capsnet"]), images_for(TINY["capsnet"])
    with torch.no_grad():
        for mode in (True, False):
            out = model.train(mode)(images)
            assert_close(out.reconstruction, model(images, out.scores.argmax(1)).reconstruction)


def test_convnet_avg_follows_the_loops():
    config = TINY["avg"]
    model, images = make(config), images_for(config, 2)
    maps = slow_convolution(model.conv1[0], images, 1, relu=True)
    maps = slow_convolution(model.conv2[0], maps, 2, relu=True)
    mean = torch.tensor([[sum(channel.flatten().tolist()) / channel.numel() for channel in image] for image in maps])
    with torch.no_grad():
        expected = reference.dense(mean.double(), model.out.weight, model.out.bias, "none")
        assert_close(model(images).scores, expected, rtol=1e-6, atol=1e-6)


def test_convnet_fc_follows_the_loops():
    config = TINY["fc"]
    model, images = make(config), images_for(config, 2)
    maps = slow_convolution(model.conv2[0], slow_convolution(model.conv1[0], images, 1, relu=True), 1, relu=True)
    units = maps.flatten(1)
    with torch.no_grad():
        for linear in model.linears:
            units = reference.dense(units, linear.weight, linear.bias, "relu")
        assert_close(model(images).scores, reference.dense(units, model.out.weight, model.out.bias, "none"))


@pytest.mark.parametrize("name", ["r", "cr", "cr-sf"])
def test_the_convnets_of_section_3_3_follow_the_loops(name):
    config = TINY[name]
    model, images = make(config), images_for(config, 2)
    group = model.get_submodule("class")
    maps = slow_convolution(model.conv1[0], images, 1, relu=True)
    if name == "cr-sf":
        features = slow_convolution(model.primary.conv, maps, 2, relu=False)
        units = reference.primary(features, types=2, dim=3).flatten(1)
    else:
        units = slow_convolution(model.conv2[0], maps, 2, relu=True).flatten(1)
    with torch.no_grad():
        flat = reference.dense(units, group.linear.weight, torch.zeros(12), "none")
        poses = flat.reshape(2, 4, 3)
        if name == "cr-sf":
            poses = torch.stack([reference.sabour_squash(pose) for pose in poses.flatten(0, 1)]).reshape(2, 4, 3)
            scores = reference.lengths(poses)
        elif name == "cr":
            scores = torch.tensor([[sum(pose) for pose in image] for image in poses.tolist()], dtype=DOUBLE)
        else:
            scores = reference.dense(flat, model.out.weight, model.out.bias, "none")
        out, best = model(images), scores.argmax(1).tolist()
        assert_close(out.scores, scores)
        assert_close(out.poses, poses)
        seen = flat if name == "r" else reference.masked(poses, best)
        assert_close(out.reconstruction, slow_decoder(model.decoder, seen))
        if name != "r":
            labels = torch.tensor([1, 2])
            pictures = slow_decoder(model.decoder, reference.masked(poses, [1, 2]))
            assert_close(model(images, labels).reconstruction, pictures)


def test_convnet_cr_sf_is_capsnet_without_routing():
    """Gu et al. 2021, sec. 3.3 say so; here with the sum of the votes, and the same parameters."""
    config = TINY["cr-sf"]
    ours = make(config)
    stem = StridedStem(channels=6, kernel=3, types=2, dim=3)
    nor = make(CapsNetConfig(size=9, classes=4, dim=3, stem=stem, routing=Uniform(value="1"), decoder_widths=(6,)))
    with torch.no_grad():
        nor.conv1.load_state_dict(ours.conv1.state_dict())
        nor.primary.load_state_dict(ours.primary.state_dict())
        nor.decoder.load_state_dict(ours.decoder.state_dict())
        weight = ours.get_submodule("class").linear.weight  # (J * D, I * P)
        transforms = nor.get_submodule("class").weight  # (I, P, J, D)
        transforms.copy_(weight.T.reshape(transforms.shape))
        images, labels = images_for(config), torch.tensor([0, 1, 2])
        for first, second in zip(ours(images, labels), nor(images, labels), strict=True):
            assert_close(first, second)


def test_gradients_of_many_units_come_in_one_batched_call():
    """Heatmaps of single units: the convolutions once, then batched vector-Jacobian products over the units."""
    for name, channels in (("capsnet", 3), ("capsnet", 64)):  # 64 channels: wide enough for the fast convolution
        model = make(replace(TINY[name], stem=replace(STRIDED, channels=channels)), torch.float32)
        image = images_for(TINY[name], 1, torch.float32).requires_grad_()
        with taps.record(model, "primary") as seen:
            scores = model(image).scores[0]
        units = torch.cat([scores, seen["primary"][0, :5].square().sum(-1)])
        (batched,) = torch.autograd.grad(units, image, torch.eye(9), is_grads_batched=True, retain_graph=True)
        one_by_one = [torch.autograd.grad(unit, image, retain_graph=True)[0] for unit in units]
        assert_close(batched, torch.stack(one_by_one), rtol=1e-3, atol=1e-6)


# ---------------------------------------------------------------- taps and interventions


def test_the_taps_of_capsule_networks():
    routed = ("votes", "coupling", "poses")
    model, images = make(TINY["deep"]), images_for(TINY["deep"], 2)
    expected = {"conv1", "primary", "reconstruction"} | {f"{at}.{tap}" for at in ("caps1", "caps2", "class")
                                                         for tap in routed}  # fmt: skip
    assert set(taps.names(model)) == expected
    with torch.no_grad(), taps.record(model, *expected) as seen:
        out = model(images)
    shapes = {name: tuple(seen[name].shape) for name in expected}
    children = capsules(9, 3, types=2)
    assert shapes == {
        "conv1": (2, 3, 7, 7), "primary": (2, children, 3),
        "caps1.votes": (2, children, 4, 2), "caps1.coupling": (2, children, 4), "caps1.poses": (2, 4, 2),
        "caps2.votes": (2, 4, 3, 3), "caps2.coupling": (2, 4, 3), "caps2.poses": (2, 3, 3),
        "class.votes": (2, 3, 4, 3), "class.coupling": (2, 3, 4), "class.poses": (2, 4, 3),
        "reconstruction": (2, 1, 9, 9),
    }  # fmt: skip
    assert torch.equal(seen["class.poses"], out.poses) and torch.equal(seen["reconstruction"], out.reconstruction)
    for tap in ("caps1", "caps2", "class"):
        coupling = seen[f"{tap}.coupling"]
        assert_close(coupling.sum(-1), torch.ones(coupling.shape[:2], dtype=DOUBLE))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fc", {"conv1", "conv2", "features"}),
        ("avg", {"conv1", "conv2", "features"}),
        ("r", {"conv1", "conv2", "class.poses", "reconstruction"}),
        ("cr-sf", {"conv1", "primary", "class.poses", "reconstruction"}),
        ("aff", {"conv1", "primary", "class.votes", "class.coupling", "class.poses"}),
        ("global", {"conv1", "conv2", "conv3", "primary"} | {f"{at}.{tap}" for at in ("caps1", "class")
                                                            for tap in ("votes", "coupling", "poses")}),
    ],
)  # fmt: skip
def test_the_taps_of_the_others(name, expected):
    model = make(TINY[name])
    assert set(taps.names(model)) == expected
    with taps.record(model, *expected) as seen:
        model(images_for(TINY[name]))
    assert all(seen[tap].isfinite().all() for tap in expected)  # each one is really passed


@pytest.mark.parametrize("name", TINY)
def test_watching_changes_nothing(name):
    model, images = make(TINY[name]).eval(), images_for(TINY[name])
    with torch.no_grad():
        before = model(images)
        with taps.record(model, *taps.names(model)):
            during = model(images)
    for first, second in zip(before, during, strict=True):
        assert (first is None and second is None) or torch.allclose(first, second, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", TINY)
def test_an_edit_of_any_tap_changes_the_result(name):
    model, images = make(TINY[name]).eval(), images_for(TINY[name])
    with torch.no_grad():
        before = model(images)
        for tap in taps.names(model):
            with taps.edit(model, {tap: lambda t: t * 0.5 + 0.01}):
                after = model(images)
            changed = [a is not None and not torch.allclose(a, b) for a, b in zip(before, after, strict=True)]
            assert any(changed), tap


def test_quantised_couplings_change_the_class_poses_as_computed_by_hand():
    model, images = make(TINY["capsnet"]), images_for(TINY["capsnet"])
    edges, centres = torch.linspace(-0.05, 1.05, 12, dtype=DOUBLE), torch.linspace(0, 1, 11, dtype=DOUBLE)

    def quantise(coupling):
        return centres[torch.bucketize(coupling, edges) - 1]

    with torch.no_grad():
        before = model(images)
        with (
            taps.edit(model, {"class.coupling": quantise}),
            taps.record(model, "class.votes", "class.coupling") as seen,
        ):
            after = model(images)
        assert not torch.allclose(before.poses, after.poses)
        assert_close(seen["class.coupling"] * 10, (seen["class.coupling"] * 10).round())
        assert_close(after.poses, reference.weighted_sum(seen["class.coupling"], seen["class.votes"]))
    assert not torch.allclose(before.scores, after.scores)


def test_an_edit_of_the_uniform_coupling_is_not_lost_to_the_fast_path():
    model, images = make(TINY["nor"]), images_for(TINY["nor"])
    with torch.no_grad(), taps.edit(model, {"class.coupling": lambda c: c * 0}):
        assert torch.equal(model(images).scores, torch.zeros(3, 4, dtype=DOUBLE))
    with torch.no_grad(), taps.edit(model, {"class.votes": lambda v: v * 0}):
        assert torch.equal(model(images).scores, torch.zeros(3, 4, dtype=DOUBLE))


def test_keeping_no_primary_capsule_leaves_nothing():
    model, images = make(TINY["capsnet"]), images_for(TINY["capsnet"])
    nothing = torch.zeros(model.primary.capsules, dtype=torch.bool)
    with torch.no_grad():
        before = model(images).scores
        with model.primary.keep(nothing):
            assert torch.equal(model(images).scores, torch.zeros(3, 4, dtype=DOUBLE))
        with model.primary.keep(~nothing):
            assert_close(model(images).scores, before)
        with model.conv1.keep(torch.tensor([True, False, True])), taps.record(model, "conv1") as seen:
            model(images)
        with model.get_submodule("class").keep(torch.tensor([0, 1, 0, 0])):
            assert model(images).scores.argmax(1).tolist() == [1, 1, 1]
    assert (seen["conv1"][:, 1] == 0).all() and (seen["conv1"][:, 0] != 0).any()


# ---------------------------------------------------------------- every field of every configuration

CHANGED = {
    "capsnet": {
        "channels": 2, "size": 11, "classes": 5, "stem": replace(STRIDED, types=3), "hidden": ((3, 2),), "dim": 4,
        "routing": Dynamic(iterations=2), "shared": True, "squash": "exponential", "bias": 0.1, "decoder": "plain",
        "decoder_widths": (7, 5), "init": "normal", "init_scale": 0.25,
        "hidden_squash": "none", "residual": True,
    },
    "fc": {
        "channels": 2, "size": 11, "classes": 5, "widths": (3, 3), "kernel": 4, "padding": "same", "hidden": (6, 6),
    },
    "avg": {"channels": 2, "size": 21, "classes": 5, "width": 7, "kernel": 4},
    "cr-sf": {
        "channels": 2, "size": 11, "classes": 5, "width": 9, "kernel": 4, "dim": 4, "primary_dim": 2, "head": "sum",
        "decoder": "plain", "decoder_widths": (7,), "squash": False,
    },
}  # fmt: skip
STEMS = {
    "capsnet": {"channels": 4, "kernel": 4, "types": 3, "dim": 2, "depth": 2},
    "global": {
        "widths": (3, 5), "kernels": (3, 2, 2), "strides": (1, 2, 2), "capsules": 4, "dim": 3, "pointwise": False,
        "standard": (0.06, 0.2),
    },
}  # fmt: skip
ROUTINGS = {
    Dynamic(): {
        "iterations": 2, "temperature": 0.5, "rate": 0.5, "learned_prior": True, "gradient": "last", "leaky": True,
    },
    Uniform(): {"value": "1/I"},
}  # fmt: skip


def behaviour(config, image_size=None):
    """What a configuration decides: parameter shapes, start, outputs, gradients, from one seed."""
    model = make(config)
    images = images_for(replace(config, size=image_size) if image_size else config, 2)
    parameters = dict(model.named_parameters())
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    start = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    out = model(images, torch.tensor([0, 1]))
    total_loss(out, torch.tensor([0, 1]), images).backward()
    gradients = {name: parameter.grad for name, parameter in parameters.items()}
    shown = {name: value.detach() for name, value in out._asdict().items() if value is not None}
    return shapes, images.shape, start, shown, gradients


def differ(first, second):
    if first[:2] != second[:2]:
        return True
    return any(
        a.keys() != b.keys() or any(a[k].shape != b[k].shape or not torch.allclose(a[k], b[k], rtol=1e-6) for k in a)
        for a, b in zip(first[2:], second[2:], strict=True)
    )


@pytest.mark.parametrize(("name", "field"), [(name, field) for name in CHANGED for field in CHANGED[name]])
def test_every_field_of_a_model_matters(name, field):
    base = TINY[name]
    assert set(CHANGED[name]) == {f.name for f in fields(base)}, "a new field needs a changed value here"
    if field in ("hidden_squash", "residual"):
        base = replace(base, hidden=((3, 2), (3, 2)), squash="exponential")  # refused without hidden layers
    assert differ(behaviour(base), behaviour(replace(base, **{field: CHANGED[name][field]})))


@pytest.mark.parametrize(("name", "field"), [(name, field) for name in STEMS for field in STEMS[name]])
def test_every_field_of_a_stem_matters(name, field):
    base = TINY[name]
    assert set(STEMS[name]) == {f.name for f in fields(base.stem)}, "a new field needs a changed value here"
    changed = replace(base, stem=replace(base.stem, **{field: STEMS[name][field]}))
    assert differ(behaviour(base), behaviour(changed))


@pytest.mark.parametrize(
    ("routing", "field"), [(routing, field) for routing in ROUTINGS for field in ROUTINGS[routing]], ids=str
)
def test_every_field_of_a_routing_reaches_the_model(routing, field):
    base = replace(TINY["capsnet"], routing=routing, init="normal")
    changed = replace(base, routing=replace(routing, **{field: ROUTINGS[routing][field]}))
    assert differ(behaviour(base), behaviour(changed))


def test_the_same_configuration_and_seed_is_the_same_model():
    for config in TINY.values():
        assert not differ(behaviour(config), behaviour(config))


@pytest.mark.parametrize("config", [entry.config for entry in ZOO.values()], ids=list(ZOO))
def test_configurations_are_frozen_and_hashable(config):
    assert hash(config) == hash(replace(config)) and config == replace(config)
    with pytest.raises(AttributeError):
        config.size = 3


BAD = [
    ("capsnet", {"squash": "soft"}, "soft"),
    ("capsnet", {"decoder": "upside"}, "upside"),
    ("capsnet", {"init": "xavier"}, "xavier"),
    ("capsnet", {"classes": 0}, "classes"),
    ("capsnet", {"channels": 0}, "channels"),
    ("capsnet", {"dim": 0}, "dim"),
    ("capsnet", {"hidden": ((0, 2),)}, "hidden"),
    ("capsnet", {"init_scale": 0.0}, "init_scale"),
    ("capsnet", {"routing": "dynamic"}, "routing"),
    ("fc", {"padding": "full"}, "full"),
    ("cr", {"head": "mean"}, "mean"),
    ("cr", {"decoder": "upside"}, "upside"),
    ("cr-sf", {"width": 7}, "7"),
]


@pytest.mark.parametrize(("name", "bad", "said"), BAD, ids=str)
def test_a_wrong_value_is_named(name, bad, said):
    with pytest.raises(ValueError, match=said) as error:
        replace(TINY[name], **bad).build()
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_a_stem_of_unequal_lists_is_named():
    with pytest.raises(ValueError, match="kernels"):
        DepthwiseStem(widths=(3, 4), kernels=(3, 3), strides=(1, 1, 2))


def test_standardised_pixels_are_what_the_stem_sees():
    """The network on pixels (x - mean) / deviation is the plain one on pixels that were changed by hand."""
    plain = TINY["global"]
    changed = replace(plain, stem=replace(plain.stem, standard=(0.25, 0.5)))
    one, other = make(plain).eval(), make(changed).eval()
    pixels = images_for(plain)
    with torch.no_grad():
        poses = other(pixels).poses
        by_hand = one.through((*one.stages, "primary", *one.layers), (pixels - 0.25) / 0.5)
    assert_close(poses, by_hand)


@pytest.mark.parametrize("standard", [(0.1,), (0.1, 0.0), (0.1, -1.0)])
def test_a_deviation_is_above_zero(standard):
    with pytest.raises(ValueError, match=r"standard = .*\(mean, deviation\) of pixels, the deviation above 0"):
        DepthwiseStem(standard=standard)


def test_lengths_are_the_scores():
    model, images = make(TINY["capsnet"]), images_for(TINY["capsnet"])
    out = model(images)
    assert_close(out.scores, layers.length(out.poses))
    assert (out.scores >= 0).all() and (out.scores < 1).all()


@pytest.mark.parametrize("head", ["linear", "sum", "length"])
def test_head_and_squash_of_convnet_r_are_chosen_apart(head):
    """What Table 5 changes together: with one seed the same weights, squashed or not, and the head alone reads them."""
    found = {}
    for squash in (None, True, False):
        torch.manual_seed(0)
        config = ConvNetRConfig(size=9, classes=4, width=6, kernel=3, dim=3, primary_dim=3, head=head, squash=squash)
        found[squash] = replace(config, decoder="none").build()(torch.rand(5, 1, 9, 9))
    assert torch.equal(found[None].scores, found[head == "length"].scores)
    assert (found[True].poses.norm(dim=-1) < 1).all()
    assert not torch.equal(found[True].poses, found[False].poses)


def test_seven_kernels_of_3_see_as_far_as_one_of_9_and_make_as_many_capsules():
    large, deep = StridedStem(channels=8, types=2, dim=4), StridedStem(channels=8, types=2, dim=4, kernel=3, depth=7)
    for stem in (large, deep):
        stages, primary = stem.build(1, 40, "none")
        for parameter in (*primary.parameters(), *(each for stage in stages for each in stage.parameters())):
            torch.nn.init.constant_(parameter, 0.1)
        image = torch.rand(1, 1, 40, 40, requires_grad=True)
        poses = primary(torch.nn.Sequential(*stages)(image))
        assert poses.shape == (1, 288, 4)
        (gradient,) = torch.autograd.grad(poses[0, 0].sum(), image)
        assert gradient[0, 0].nonzero().amax(0).tolist() == [16, 16]  # the first capsule sees 17 x 17 pixels
    with pytest.raises(ValueError, match="depth = 0"):
        StridedStem(depth=0)


def test_aff_capsnet_is_a_grouped_1x1_convolution_with_pooling():
    """One transform for all children and the average as coupling (Gu et al. 2021, sec. 3.1), exactly, in float64."""
    torch.manual_seed(0)
    config = CapsNetConfig(size=20, stem=StridedStem(channels=24, kernel=5, types=3), decoder="none")
    model = replace(config, routing=Uniform(value="1/I"), shared=True).build().double()
    with torch.no_grad(), taps.record(model, "primary") as seen:
        poses = model(torch.rand(3, 1, 20, 20, dtype=torch.float64)).poses
    height, width, types = model.primary.grid
    maps = seen["primary"].unflatten(1, (height, width, types)).permute(0, 3, 4, 1, 2).flatten(1, 2)
    weight = model.get_submodule("class").weight[0].flatten(1).T[:, :, None, None]
    pooled = torch.nn.functional.conv2d(maps, weight.repeat(types, 1, 1, 1), groups=types).mean((2, 3))
    assert_close(layers.squash(pooled.unflatten(1, (types, 10, 16)).mean(1)), poses)
