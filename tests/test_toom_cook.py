import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from capsnb.nn import convolution
from capsnb.nn.fast import toom_cook

WIDE = ((128, 256, 20, 20), (256, 256, 9, 9), 2)


def both(x, weight, bias, stride, dtype):
    """Output and gradients of F.conv2d in float64, and those of toom_cook.conv2d in `dtype`."""
    results = []
    for convolve, kind in ((F.conv2d, torch.float64), (toom_cook.conv2d, dtype)):
        leaves = [t.detach().to(kind).requires_grad_() for t in (x, weight, bias)]
        y = convolve(*leaves, stride)
        probe = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).sin().view(y.shape)
        y.backward(probe.to(kind))
        results.append([y.detach(), *(leaf.grad for leaf in leaves)])
    return zip(*results, strict=True)


def relative_error(exact, approximate):
    return ((approximate.double() - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("m, r", [(1, 3), (2, 3), (3, 5), (5, 5), (6, 5), (7, 4), (5, 6), (1, 11)])
def test_toom_cook_is_the_correlation(m, r):
    a, g, b = toom_cook.toom_cook(m, r)
    x, w = torch.randn(m + r - 1, dtype=torch.float64), torch.randn(r, dtype=torch.float64)
    slow = torch.stack([sum(x[k + i] * w[i] for i in range(r)) for k in range(m)])
    torch.testing.assert_close(a @ ((g @ w) * (b @ x)), slow, rtol=1e-11, atol=1e-11)


def test_tile_sizes_of_the_papers_layers():
    assert toom_cook.tile_outputs(6, 5) == 6  # 9 x 9 at stride 2 of 20 x 20: one tile of 10 points
    assert toom_cook.tile_outputs(12, 5) == 6
    assert toom_cook.tile_outputs(10, 5) == 5  # two tiles of 9 points rather than of 10
    assert toom_cook.tile_outputs(4, 11) == 1  # more taps than points: direct


@settings(max_examples=40, deadline=None)
@given(
    kernel=st.tuples(st.integers(3, 11), st.integers(3, 11)),
    extra=st.tuples(st.integers(0, 14), st.integers(0, 14)),
    stride=st.integers(1, 3),
    batch=st.integers(1, 3),
    widths=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    channels_last=st.booleans(),
    seed=st.integers(0, 99),
)
def test_values_and_gradients_equal_torch(kernel, extra, stride, batch, widths, channels_last, seed):
    generator = torch.Generator().manual_seed(seed)
    inputs, outputs = widths
    size = [k + e for k, e in zip(kernel, extra, strict=True)]
    x = torch.randn(batch, inputs, *size, generator=generator, dtype=torch.float64)
    weight = torch.randn(outputs, inputs, *kernel, generator=generator, dtype=torch.float64)
    bias = torch.randn(outputs, generator=generator, dtype=torch.float64)
    if channels_last:
        x, weight = (t.to(memory_format=torch.channels_last) for t in (x, weight))
    for exact, ours in both(x, weight, bias, stride, torch.float64):
        assert ours.shape == exact.shape
        torch.testing.assert_close(ours, exact, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "size, kernel, stride", [(20, 9, 2), (28, 9, 2), (32, 9, 2), (20, 5, 2), (20, 7, 2), (21, 11, 2), (24, 5, 1)]
)
@pytest.mark.parametrize("channels_last", [False, True])
def test_float32_error(size, kernel, stride, channels_last):
    torch.manual_seed(size)
    x, weight = torch.randn(2, 64, size, size).relu(), torch.randn(64, 64, kernel, kernel) / (8 * kernel)
    if channels_last:
        x, weight = (t.to(memory_format=torch.channels_last) for t in (x, weight))
    errors = [relative_error(*pair) for pair in both(x, weight, torch.randn(64), stride, torch.float32)]
    assert max(errors) < 5e-5, errors


def test_pieces_do_not_change_the_result(monkeypatch):
    torch.manual_seed(0)
    arguments = torch.randn(7, 3, 23, 19), torch.randn(4, 3, 5, 5), torch.randn(4), 2, torch.float64
    monkeypatch.setattr(toom_cook, "PIECE", 1)  # one image at a time
    for exact, ours in both(*arguments):
        torch.testing.assert_close(ours, exact, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size, kernel, stride", [(9, 3, 2), (6, 3, 1), (7, 2, 3)])
def test_gradcheck(size, kernel, stride):
    torch.manual_seed(0)
    shapes = (2, 2, size, size), (2, 2, kernel, kernel), (2,)
    leaves = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(lambda *tensors: toom_cook.conv2d(*tensors, stride), leaves)


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2), (1, 2)])
def test_gradients_only_where_wanted(wanted):
    torch.manual_seed(0)
    leaves = [torch.randn(2, 3, 12, 12), torch.randn(4, 3, 5, 5), torch.randn(4)]
    for i in wanted:
        leaves[i].requires_grad_()
    toom_cook.conv2d(*leaves, 2).sum().backward()
    assert [i for i, leaf in enumerate(leaves) if leaf.grad is not None] == list(wanted)


def test_without_bias_and_in_channels_last_memory():
    x, weight = torch.randn(2, 3, 12, 12), torch.randn(4, 3, 5, 5)
    y = toom_cook.conv2d(x, weight, None, 2)
    torch.testing.assert_close(y, F.conv2d(x, weight, None, 2), rtol=1e-4, atol=1e-4)
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_second_derivatives_are_refused_rather_than_wrong():
    x, weight = torch.randn(1, 2, 9, 9, requires_grad=True), torch.randn(3, 2, 5, 5)
    with pytest.raises(RuntimeError, match="can be differentiated once only"):
        torch.autograd.grad(toom_cook.conv2d(x, weight).square().sum(), x, create_graph=True)


@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 3, 8, 8), (4, 2, 3, 3), (4,)),  # channels
        ((2, 3, 8, 8), (4, 3, 9, 3), (4,)),  # kernel larger than the image
        ((2, 3, 8, 8), (4, 3, 3, 3), (5,)),  # bias
        ((2, 3), (4, 3, 3, 3), (4,)),
    ],
)
def test_wrong_input_raises_what_torch_raises(shapes):
    tensors = [torch.zeros(shape) for shape in shapes]
    with pytest.raises(RuntimeError) as theirs:
        F.conv2d(*tensors, 2)
    with pytest.raises(RuntimeError) as ours:
        toom_cook.conv2d(*tensors, 2)
    assert str(ours.value) == str(theirs.value)


def test_an_empty_batch_gives_an_empty_output():
    y = toom_cook.conv2d(torch.zeros(0, 3, 8, 8), torch.zeros(4, 3, 3, 3), torch.zeros(4), 1)
    assert y.shape == (0, 4, 6, 6)


def test_pays_by_shape_dtype_and_device_only(monkeypatch):
    assert convolution.pays(*WIDE, torch.float32, "cpu")
    assert not convolution.pays(*WIDE, torch.float64, "cpu")
    assert not convolution.pays(*WIDE, torch.bfloat16, "cpu")
    assert not convolution.pays(*WIDE, torch.float32, torch.device("cuda", 0))
    assert not convolution.pays(*WIDE, torch.float32, "cpu", enabled=False)
    assert not convolution.pays((128, 1, 28, 28), (256, 1, 9, 9), 1, torch.float32, "cpu")
    assert not convolution.pays((128, 256, 20, 20), (256, 256, 1, 1), 1, torch.float32, "cpu")
    assert not convolution.pays((128, 256, 9, 9), (256, 256, 9, 9), 2, torch.float32, "cpu")
    assert not convolution.pays((256, 8, 8), *WIDE[1:], torch.float32, "cpu")
    monkeypatch.setenv("CAPSNB_FASTCONV", "0")
    assert not convolution.pays(*WIDE, torch.float32, "cpu")


@pytest.fixture
def taken(monkeypatch):
    """The calls of toom_cook.conv2d that a module made."""
    calls, convolve = [], toom_cook.conv2d
    monkeypatch.setattr(toom_cook, "conv2d", lambda *args: calls.append(args) or convolve(*args))
    return calls


def wide_module(**options):
    torch.manual_seed(0)
    return convolution.Conv2d(32, 256, 9, stride=2, **options), torch.rand(64, 32, 20, 20)


def test_the_module_is_torchs_with_the_same_initial_values(taken):
    ours, x = wide_module()
    torch.manual_seed(0)
    theirs = nn.Conv2d(32, 256, 9, stride=2)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)
    assert len(taken) == 1
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())


def test_the_module_has_an_off_switch(taken, monkeypatch):
    plain, x = wide_module(fast=False)
    fast, _ = wide_module()
    with torch.no_grad():
        plain(x)
        monkeypatch.setenv("CAPSNB_FASTCONV", "0")
        fast(x)
        monkeypatch.delenv("CAPSNB_FASTCONV")
        fast.double()(x[:1].double())
    assert not taken


@pytest.mark.parametrize("options", [{"padding": 1}, {"dilation": 2}, {"groups": 2}, {"padding": "same", "stride": 1}])
def test_the_module_leaves_other_convolutions_to_torch(taken, monkeypatch, options):
    module = convolution.Conv2d(64, 64, 9, **{"stride": 2, **options})
    monkeypatch.setattr(convolution, "pays", lambda *args, **kwargs: True)
    with torch.no_grad():
        module(torch.rand(1, 64, 20, 20))
    assert not taken


def test_autocast_is_left_to_torch():
    module, x = wide_module()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert module(x[:1]).dtype == torch.bfloat16


def test_the_output_is_channels_last_even_from_one_channel():
    y = convolution.Conv2d(1, 8, 3)(torch.rand(2, 1, 9, 9))
    assert y.stride() == (8 * 49, 1, 7 * 8, 8)


def test_repeats_are_bit_identical_copies_and_pickles_too():
    module, x = wide_module()
    x.requires_grad_()
    y = module(x)
    y.square().sum().backward()
    first = [y, x.grad, module.weight.grad, module.bias.grad]
    for again in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert again.weight.stride() == module.weight.stride()
        x.grad = again.weight.grad = again.bias.grad = None
        y = again(x)
        y.square().sum().backward()
        assert all(
            torch.equal(a, b) for a, b in zip(first, [y, x.grad, again.weight.grad, again.bias.grad], strict=True)
        )


def test_inference_mode_leaves_nothing_that_training_trips_over():
    toom_cook._axis.cache_clear()  # the matrices are first made under inference mode
    module, x = wide_module()
    with torch.inference_mode():
        expected = module(x).clone()
    y = module(x)
    y.sum().backward()
    assert torch.equal(y, expected)
    assert module.weight.grad.isfinite().all()
