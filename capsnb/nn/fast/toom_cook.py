"""Valid convolution with few multiplications: polyphase components and Toom-Cook tiles, for wide layers on a CPU.

One axis, stride s, kernel K. Splitting signal and kernel by phase, x_i[a] = x[s a + i] and w_i[a] = w[s a + i],

    y[o] = sum_k x[s o + k] w[k] = sum_i sum_a x_i[o + a] w_i[a],   i < s, a < r = ceil(K / s),

turns a strided correlation into s unstrided ones that are summed, so the phases simply become more input channels.

Toom-Cook F(m, r) yields m outputs of a correlation with r taps from n = m + r - 1 inputs by n products instead of m r.
Evaluating two polynomials of degrees m - 1 and r - 1 at n points, multiplying, and interpolating gives their product,
a linear convolution: E_n^-1 [(E_r w) * (E_m a)]. A correlation is its transpose in `a`:

    y = A [(G w) * (B x)],   A = E_m^T,  G = E_r,  B = E_n^-T.

The n points lie on the projective line at equal angles, (cos t, sin t) with t = pi k / n, and a polynomial of degree d
is evaluated in homogeneous form, sum_j c_j cos(t)^(d - j) sin(t)^j; zero is among them and, for even n, infinity. That
loses 2.4 times less to cancellation, for F(6, 5), than 0, +-1, +-1/2, +-2, +-3/2 do. Multiplying row k of G, row k of
B and column k of A by factors whose product is 1 changes nothing exactly; ours give the three equal norms.

In two dimensions each axis has its own matrices, and a product of numbers becomes one of matrices over the channels C
and O, for each of the R = n_H n_W points, with all tiles of a row of tiles and all images B as rows:

    U = B_H x B_W^T  (R, tiles B, C),    V = G_H w G_W^T  (R, O, C),    M = sum over phases of U V^T,    y = A_H M A_W^T

A 9 x 9 kernel at stride 2 with m = 6 takes 4 (10 / 6)^2 = 11 products for each output and channel instead of 81. What
is left is bound by memory traffic, so the work is done phase by phase in pieces that caches and malloc can keep. The
backward pass applies the transposed matrices in the opposite order. It recomputes U and V, so that only x and weight
are kept between the passes. Memory needed on top of inputs and results: V (with its gradient) for one phase, a few
pieces, and, at a stride above 1, M.
"""

import functools
import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from capsnb.nn.fast import refuse_graph

MOST_POINTS = 10  # n; the float32 error more than doubles with each further point: at 10 y has 2e-5, grad x 5e-5
PIECE = 28 << 20  # bytes; glibc's malloc maps blocks above 32 MiB anew, page by page, each time


class _Axis(NamedTuple):
    """What one axis of a convolution needs: its sizes, and the matrices of its Toom-Cook algorithm."""

    out: int  # outputs
    length: int  # samples of a phase that the outputs see
    m: int  # outputs a tile
    kernel: Tensor  # G, (n, r)
    tile: Tensor  # B, (n, n)
    tiled: Tensor  # B of all tiles at once, (n tiles, length), rows ordered (point, tile)
    back: Tensor  # A, (m, n)
    tiled_back: Tensor  # A of all tiles at once, (out, n tiles)


def toom_cook(m: int, r: int) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices A (m, n), G (n, r), B (n, n) in float64 with correlate(x, w) = A [(G w) * (B x)], n = m + r - 1."""
    n = m + r - 1
    if m == 1:  # the plain sum: as many products, and no rounding
        one = torch.eye(r, dtype=torch.float64)
        return torch.ones(1, r, dtype=torch.float64), one, one
    angle = torch.arange(n, dtype=torch.float64) * (math.pi / n)
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]

    def evaluate(size: int) -> Tensor:
        power = torch.arange(size)
        return cos ** (size - 1 - power) * sin**power

    a, g, b = evaluate(m), evaluate(r), torch.linalg.inv(evaluate(n)).T
    norms = [rows.norm(dim=1, keepdim=True) for rows in (a, g, b)]
    mean = (norms[0] * norms[1] * norms[2]) ** (1 / 3)
    a, g, b = (rows * (mean / norm) for rows, norm in zip((a, g, b), norms, strict=True))
    return a.T, g, b


def tile_outputs(out: int, taps: int) -> int:
    """The m of F(m, taps) with the fewest products for `out` outputs, and of those the smallest, the most accurate."""
    return min(range(1, max(1, MOST_POINTS - taps + 1) + 1), key=lambda m: -(-out // m) * (m + taps - 1))


@functools.cache
def _axis(size: int, kernel: int, stride: int, dtype: torch.dtype, device: torch.device) -> _Axis:
    out, taps = (size - kernel) // stride + 1, -(-kernel // stride)
    m = tile_outputs(out, taps)
    n, tiles, length = m + taps - 1, -(-out // m), out + taps - 1
    a, g, b = toom_cook(m, taps)
    tiled = torch.zeros(n, tiles, tiles * m + taps - 1, dtype=torch.float64)
    tiled_back = torch.zeros(tiles, m, n, tiles, dtype=torch.float64)
    for t in range(tiles):
        tiled[:, t, t * m : t * m + n] = b
        tiled_back[t, :, :, t] = a
    tiled = tiled.reshape(n * tiles, -1)[:, :length]
    tiled_back = tiled_back.reshape(tiles * m, n * tiles)[:out]
    return _Axis(out, length, m, *(x.to(device, dtype).contiguous() for x in (g, b, tiled, a, tiled_back)))


def _both(rows: Tensor, columns: Tensor, x: Tensor) -> Tensor:
    """Apply a matrix to each of the first two axes: (a, b), (c, d), (b, d, ...) -> (a, c, the rest flattened)."""
    if rows.shape[0] > rows.shape[1]:  # the order with the smaller intermediate
        x = torch.matmul(columns, x.flatten(2))
        return torch.matmul(rows, x.flatten(1)).view(len(rows), *x.shape[1:])
    return torch.matmul(columns, torch.matmul(rows, x.flatten(1)).view(len(rows), x.shape[1], -1))


class _Work:
    """The pieces a convolution is done in: phases of the stride, batches of images, rows of tiles.

    A piece is small enough (PIECE) to stay in the cache and in memory that malloc keeps from one piece to the next.
    """

    def __init__(self, x: Tensor, weight: Tensor, stride: int) -> None:
        self.x, self.weight, self.stride = x, weight, stride
        self.high, self.wide = (_axis(x.shape[d], weight.shape[d], stride, x.dtype, x.device) for d in (2, 3))
        self.points = len(self.high.kernel) * len(self.wide.kernel)
        image = x.element_size() * len(self.high.kernel) * len(self.wide.tiled) * max(weight.shape[:2])
        batches = -(-len(x) // max(1, PIECE // image))
        size = -(-len(x) // batches)
        self.batches = [slice(at, at + size) for at in range(0, len(x), size)]
        self.tops = range(0, self.high.out, self.high.m)
        high, wide = (range(min(stride, size)) for size in weight.shape[2:])
        self.phases = [(i, j) for i in high for j in wide]

    def phased(self, x: Tensor, phase: tuple[int, int]) -> Tensor:
        """The view (rows, columns, B, C) of one phase of images (B, C, H, W), as far as it is used; kernels alike."""
        view = x[:, :, phase[0] :: self.stride, phase[1] :: self.stride]
        return view[:, :, : self.high.length, : self.wide.length].permute(2, 3, 0, 1)

    def v(self, phase: tuple[int, int]) -> Tensor:
        """The transformed kernel, (R, O, C)."""
        taps = self.phased(self.weight, phase).contiguous()
        rows, columns = self.high.kernel[:, : taps.shape[0]], self.wide.kernel[:, : taps.shape[1]]
        return _both(rows, columns, taps).view(self.points, *self.weight.shape[:2])

    def u(self, signal: Tensor, top: int) -> Tensor:
        """The transformed tiles of the row of tiles whose first output row is `top`, (R, tiles B, C)."""
        window = signal[top : top + len(self.high.tile)]
        rows, columns = self.high.tile[:, : len(window)], self.wide.tiled[:, : signal.shape[1]]
        return _both(rows, columns, window).view(self.points, -1, signal.shape[3])

    def add_u_adjoint(self, signal: Tensor, top: int, u: Tensor) -> None:
        """Add to `signal` (rows, columns, B, C) what the adjoint of `u` gives."""
        window = signal[top : top + len(self.high.tile)]
        rows, columns = self.high.tile[:, : len(window)], self.wide.tiled[:, : signal.shape[1]]
        window += _both(rows.T, columns.T, u.view(len(rows), len(columns), -1)).view_as(window)

    def outputs(self, products: Tensor, count: int) -> Tensor:
        """The first `count` output rows of a row of tiles: products (R, tiles B, O) -> (rows, columns, B O)."""
        products = products.view(len(self.high.tile), len(self.wide.tiled), -1)
        return _both(self.high.back[:count], self.wide.tiled_back, products)

    def outputs_adjoint(self, outputs: Tensor) -> Tensor:
        """The adjoint of `outputs`: (rows, columns, B, O) -> (R, tiles B, O)."""
        products = _both(self.high.back[: len(outputs)].T, self.wide.tiled_back.T, outputs)
        return products.view(self.points, -1, outputs.shape[3])


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        work = _Work(x, weight, stride)
        shape = (len(x), len(weight), work.high.out, work.wide.out)
        y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        held: dict[tuple[int, int], Tensor] = {}
        for phase in work.phases:
            v = work.v(phase).transpose(1, 2)
            for images in work.batches:
                signal = work.phased(x[images], phase).contiguous()
                for top in work.tops:
                    key, u = (images.start, top), work.u(signal, top)
                    held[key] = held[key].baddbmm_(u, v) if key in held else torch.bmm(u, v)
                    del u  # here and below: each piece goes before the next comes
                    if phase == work.phases[-1]:
                        rows = y[images, :, top : top + work.high.m].permute(2, 3, 0, 1)
                        outputs = work.outputs(held.pop(key), len(rows)).view(rows.shape)
                        rows.copy_(outputs) if bias is None else torch.add(outputs, bias, out=rows)
                        del outputs
                del signal
            del v
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        refuse_graph("this convolution")
        x, weight = ctx.saved_tensors
        need_x, need_weight, need_bias, _ = ctx.needs_input_grad
        grad_bias = grad.sum((0, 2, 3)) if need_bias else None
        if not (need_x or need_weight):
            return None, None, grad_bias, None
        work = _Work(x, weight, ctx.stride)
        grad_x = torch.zeros_like(x, memory_format=torch.channels_last) if need_x else None
        grad_weight = torch.empty_like(weight) if need_weight else None
        held: dict[tuple[int, int], Tensor] = {}
        for phase in work.phases:
            v, grad_v = work.v(phase) if need_x else None, None
            for images in work.batches:
                view = work.phased(x[images], phase)
                signal = view.contiguous() if need_weight else None
                grad_signal = torch.zeros(view.shape, dtype=x.dtype, device=x.device) if need_x else None
                for top in work.tops:
                    key = (images.start, top)
                    products = held.pop(key, None)
                    if products is None:
                        rows = grad[images, :, top : top + work.high.m].permute(2, 3, 0, 1).contiguous()
                        products = work.outputs_adjoint(rows)
                    if phase != work.phases[-1]:
                        held[key] = products
                    if signal is not None:
                        across, u = products.transpose(1, 2), work.u(signal, top)
                        grad_v = torch.bmm(across, u) if grad_v is None else grad_v.baddbmm_(across, u)
                        del across, u
                    if grad_signal is not None and v is not None:
                        work.add_u_adjoint(grad_signal, top, torch.bmm(products, v))
                    del products
                if grad_x is not None and grad_signal is not None:
                    work.phased(grad_x[images], phase).copy_(grad_signal)
                del signal, grad_signal
            del v
            if grad_weight is not None and grad_v is not None:
                taps = work.phased(grad_weight, phase)
                rows, columns = work.high.kernel[:, : taps.shape[0]], work.wide.kernel[:, : taps.shape[1]]
                grad_v = grad_v.view(len(rows), len(columns), -1)
                taps.copy_(_both(rows.T, columns.T, grad_v).view(taps.shape))
        return grad_x, grad_weight, grad_bias, None


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int = 1) -> Tensor:
    """`torch.nn.functional.conv2d(x, weight, bias, stride)`, the result in channels_last memory, differentiable once.

    x (B, C, H, W), weight (O, C, K, L), bias (O,) -> (B, O, (H - K) // stride + 1, (W - L) // stride + 1). Fastest with
    x and weight in channels_last memory. Half precision, autocast, sizes of zero and wrong input are left to torch.
    """
    tensors = [x, weight] if bias is None else [x, weight, bias]
    ours = (
        x.dtype in (torch.float32, torch.float64)
        and len({(t.dtype, t.device) for t in tensors}) == 1
        and x.dim() == weight.dim() == 4
        and min(x.shape + weight.shape) > 0
        and x.shape[1] == weight.shape[1]
        and all(kernel <= size for kernel, size in zip(weight.shape[2:], x.shape[2:], strict=True))
        and (bias is None or bias.shape == weight.shape[:1])
        and isinstance(stride, int)
        and stride > 0
        and not torch.is_autocast_enabled(x.device.type)
    )
    return _Convolution.apply(x, weight, bias, stride) if ours else F.conv2d(x, weight, bias, stride)
