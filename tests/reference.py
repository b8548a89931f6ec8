"""Slow references in float64, one loop per index, written from the papers and not from capsnb.

Everything is scalar arithmetic on 0-dimensional tensors, so that autograd can also differentiate the references.
Axis letters as in capsnb: B batch, I children, J parents, P child pose size, D parent pose size, K classes.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Squash = Callable[[Tensor], Tensor]


def dot(a: Tensor, b: Tensor) -> Tensor:
    """(D,), (D,) -> the scalar product, one term at a time."""
    total = a.new_zeros(())
    for x, y in zip(a, b, strict=True):
        total = total + x * y
    return total


def softmax(logits: list[Tensor]) -> list[Tensor]:
    """Of a list of scalars; the largest is subtracted first, which changes nothing but the overflow."""
    top = max(float(b.detach()) for b in logits)
    powers = [torch.exp(b - top) for b in logits]
    return [power / sum(powers) for power in powers]


def sabour_squash(s: Tensor) -> Tensor:
    """Sabour et al. 2017, eq. 1: |s|^2 / (1 + |s|^2) * s / |s|. (D,) -> (D,); its derivative at 0 is the 0 matrix."""
    squared = dot(s, s)
    if squared == 0:
        return s * 0
    return torch.stack([squared / (1 + squared) * x / torch.sqrt(squared) for x in s])


def exponential_squash(s: Tensor) -> Tensor:
    """Mitterreiter et al. 2023, eq. 1: (1 - 1 / exp |s|) s / |s|. (D,) -> (D,); its derivative at 0 is the identity."""
    squared = dot(s, s)
    if squared == 0:
        return s * 1
    n = torch.sqrt(squared)
    return torch.stack([(1 - 1 / torch.exp(n)) * x / n for x in s])


def no_squash(s: Tensor) -> Tensor:
    """Gu et al. 2021, table 2, row "Squash-fn": the sum as it is."""
    return s


SQUASHES = {"sabour": sabour_squash, "exponential": exponential_squash, "none": no_squash}


def weighted_sum(coupling: Tensor, votes: Tensor, squash: Squash = sabour_squash, bias: Tensor | None = None) -> Tensor:
    """v_j = g(sum_i c_ij u_ij + bias_j). (B, I, J), (B, I, J, D) -> (B, J, D)"""
    batch, children, parents, size = votes.shape
    poses = []
    for n in range(batch):
        for j in range(parents):
            s = []
            for d in range(size):
                total = votes.new_zeros(()) if bias is None else bias[j, d]
                for i in range(children):
                    total = total + coupling[n, i, j] * votes[n, i, j, d]
                s.append(total)
            poses.append(squash(torch.stack(s)))
    return torch.stack(poses).reshape(batch, parents, size)


def procedure_1(
    votes: Tensor,
    iterations: int,
    *,
    prior: Tensor | None = None,
    temperature: float = 1.0,
    rate: float = 1.0,
    squash: Squash = sabour_squash,
    bias: Tensor | None = None,
    constant_agreement: bool = False,
) -> Tensor:
    """Sabour et al. 2017, procedure 1: the coupling of the last weighted sum. (B, I, J, D) -> (B, I, J)

    b_ij starts at the prior and is carried along: b_ij <- b_ij + v_j . u_ij. The softmax runs over the parents j.
    rate: Lin et al. 2018, eq. 3, c <- rate * c_hat + (1 - rate) * c_old.
    constant_agreement: v_j . u_ij carries no gradient, as in Renzulli et al.; a prior keeps its own.
    """
    batch, children, parents, _ = votes.shape
    b = [
        [[prior[i, j] if prior is not None else votes.new_zeros(()) for j in range(parents)] for i in range(children)]
        for _ in range(batch)
    ]
    c = None
    for step in range(iterations):
        new = [[softmax([b[n][i][j] / temperature for j in range(parents)]) for i in range(children)]
               for n in range(batch)]  # fmt: skip
        if c is not None and rate != 1:
            for n in range(batch):
                for i in range(children):
                    for j in range(parents):
                        new[n][i][j] = rate * new[n][i][j] + (1 - rate) * c[n][i][j]
        c = new
        if step < iterations - 1:  # the update after the last weighted sum is never read
            v = weighted_sum(stack(c), votes, squash, bias)
            for n in range(batch):
                for i in range(children):
                    for j in range(parents):
                        agreement = dot(v[n, j], votes[n, i, j])
                        b[n][i][j] = b[n][i][j] + (agreement.detach() if constant_agreement else agreement)
    return stack(c)


def over_children(votes: Tensor, iterations: int, *, squash: Squash = sabour_squash) -> tuple[Tensor, Tensor]:
    """As Tawalbeh & Oramas 2024's code describes it: coupling and last agreement, both (B, I, J).

    Each parent of each image goes on its own: its logits are one list over the children, who get them as they agree.
    """
    batch, children, parents, _ = votes.shape
    coupling, agreed = votes.new_zeros(batch, children, parents), votes.new_zeros(batch, children, parents)
    for n in range(batch):
        for j in range(parents):
            logits = [votes.new_zeros(()) for _ in range(children)]
            for step in range(iterations):
                shares = softmax(logits)
                pose = squash(sum(share * votes[n, i, j] for i, share in enumerate(shares)))
                if step < iterations - 1:
                    heard = [dot(pose, votes[n, i, j]) for i in range(children)]
                    logits = [old + new for old, new in zip(logits, heard, strict=True)]
                    agreed[n, :, j] = torch.stack(heard)
            coupling[n, :, j] = torch.stack(shares)
    return coupling, agreed


def stack(nested: list) -> Tensor:
    """Nested lists of scalars -> a tensor, keeping the gradient graph."""
    return torch.stack([stack(item) if isinstance(item, list) else item for item in nested])


def votes(poses: Tensor, weight: Tensor) -> Tensor:
    """u_ij = pose_i @ W_ij. (B, I, P), (I or 1, P, J, D) -> (B, I, J, D); a shared W has a first axis of 1."""
    batch, children, size = poses.shape
    parents, parent_size = weight.shape[2:]
    out = poses.new_zeros(batch, children, parents, parent_size)
    for n in range(batch):
        for i in range(children):
            row = i if weight.shape[0] == children else 0
            for j in range(parents):
                for d in range(parent_size):
                    for p in range(size):
                        out[n, i, j, d] += poses[n, i, p] * weight[row, p, j, d]
    return out


def convolution(images: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1) -> Tensor:
    """Cross-correlation without padding. (B, C, H, W), (O, C, K, K), (O,) -> (B, O, H', W')"""
    x, w = images.tolist(), weight.tolist()
    start = [0.0] * len(w) if bias is None else bias.tolist()
    out_channels, channels, kernel, _ = weight.shape
    height = (images.shape[2] - kernel) // stride + 1
    width = (images.shape[3] - kernel) // stride + 1
    out = torch.zeros(len(x), out_channels, height, width, dtype=torch.float64)
    for n in range(len(x)):
        for o in range(out_channels):
            for row in range(height):
                for column in range(width):
                    total = start[o]
                    for c in range(channels):
                        for ky in range(kernel):
                            for kx in range(kernel):
                                total += x[n][c][row * stride + ky][column * stride + kx] * w[o][c][ky][kx]
                    out[n, o, row, column] = total
    return out


def primary(features: Tensor, types: int, dim: int, squash: Squash = sabour_squash) -> Tensor:
    """Channels of one place grouped into capsules. (B, types * dim, H, W) -> (B, H * W * types, dim)

    Channel = type * dim + component; capsule i = (y * W + x) * types + type.
    """
    batch, _, height, width = features.shape
    out = features.new_zeros(batch, height * width * types, dim)
    for n in range(batch):
        for y in range(height):
            for x in range(width):
                for kind in range(types):
                    s = torch.stack([features[n, kind * dim + component, y, x] for component in range(dim)])
                    out[n, (y * width + x) * types + kind] = squash(s)
    return out


def lengths(poses: Tensor) -> Tensor:
    """(B, K, D) -> (B, K), the square root of the sum of squares."""
    return torch.tensor(
        [[math.sqrt(sum(x * x for x in pose)) for pose in image] for image in poses.tolist()], dtype=torch.float64
    )


def margin(scores: list[float], labels: list[int], m_plus=0.9, m_minus=0.1, down_weight=0.5) -> float:
    """Sabour et al. 2017, eq. 4, of one image, summed over the classes; labels are all classes in the image."""
    total = 0.0
    for k, score in enumerate(scores):
        if k in labels:
            total += max(0.0, m_plus - score) ** 2
        else:
            total += down_weight * max(0.0, score - m_minus) ** 2
    return total


def masked(poses: Tensor, labels: list[int]) -> Tensor:
    """All but the capsule of the label set to zero. (B, K, D) -> (B, K * D), class by class"""
    batch, classes, size = poses.shape
    out = poses.new_zeros(batch, classes * size)
    for n in range(batch):
        for d in range(size):
            out[n, labels[n] * size + d] = poses[n, labels[n], d]
    return out


def dense(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    """(B, N), (M, N), (M,) -> (B, M), activation "relu", "sigmoid" or "none"."""
    rows, w, b = x.tolist(), weight.tolist(), bias.tolist()
    out = []
    for row in rows:
        line = []
        for m in range(len(w)):
            total = b[m] + math.fsum(v * u for v, u in zip(row, w[m], strict=True))
            if activation == "relu":
                total = max(0.0, total)
            elif activation == "sigmoid":
                total = 1 / (1 + math.exp(-total))
            line.append(total)
        out.append(line)
    return torch.tensor(out, dtype=torch.float64)


def longest(poses: Tensor) -> list[int]:
    """The class of the longest capsule of each image. (B, K, D) -> B numbers"""
    return [max(range(len(row)), key=row.__getitem__) for row in lengths(poses).tolist()]
