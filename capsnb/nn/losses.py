"""Losses, one number per image: (B,). Labels are (B,), or (B, m) when an image shows m things."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor


def present(labels: Tensor, classes: int) -> Tensor:
    """T_k of the margin loss: 1 where class k is in the image. labels (B,) or (B, m) -> (B, K) bool."""
    shown = F.one_hot(labels, classes).bool()
    return shown if labels.dim() == 1 else shown.any(1)


def margin(
    scores: Tensor, labels: Tensor, *, m_plus: float = 0.9, m_minus: float = 0.1, down_weight: float = 0.5
) -> Tensor:
    """Margin loss on capsule lengths, summed over classes (Sabour et al. 2017, eq. 4). scores (B, K) -> (B,).

    Sabour's released code halves the whole; we follow the paper, as Renzulli et al. do, so that the reconstruction
    weight of 0.0005 has the paper's meaning.
    """
    shown = present(labels, scores.shape[1]).to(scores.dtype)
    missed = shown * F.relu(m_plus - scores) ** 2
    false = (1 - shown) * F.relu(scores - m_minus) ** 2
    return (missed + down_weight * false).sum(1)


def spread(scores: Tensor, labels: Tensor, *, margin: float | Tensor = 0.9) -> Tensor:
    """Spread loss on activations: sum over the wrong classes i of max(0, margin - (a_t - a_i))^2. (B, K) -> (B,).

    Hinton et al. 2018, eq. 3; with several labels t, the sum of their terms. Without `schedules.GrowMargin` the margin
    is 0.9 from the start, as in Tawalbeh & Oramas' released code.
    """
    shown = present(labels, scores.shape[1]).to(scores.dtype)
    gap = F.relu(margin - (scores.unsqueeze(2) - scores.unsqueeze(1))) ** 2
    return (gap * shown.unsqueeze(2) * (1 - shown).unsqueeze(1)).sum((1, 2))


def cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """Softmax cross-entropy on logits (B, K) -> (B,); with several labels, the mean of their terms."""
    return _log_loss(scores.log_softmax(1), labels)


def length_cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of lengths as shares of their sum, -ln(length of the label / sum of lengths). (B, K) -> (B,).

    Gu et al. 2021, Table 2, give "cross-entropy loss" for capsule lengths and no formula: this reading takes lengths
    for probabilities, `cross_entropy` on them takes them for logits, which between 0 and 1 give the right one of
    ten classes 23 % of the probability at most. A length below 1e-12 counts as 1e-12.
    """
    return _log_loss(F.normalize(scores.clamp_min(1e-12), p=1, dim=1).log(), labels)


def binary_cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """Sigmoid cross-entropy on logits, summed over classes (Gu et al. 2021, sec. 3.2). (B, K) -> (B,)."""
    shown = present(labels, scores.shape[1]).to(scores.dtype)
    return F.binary_cross_entropy_with_logits(scores, shown, reduction="none").sum(1)


def length_binary_cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of lengths in [0, 1) taken as probabilities, summed over classes. (B, K) -> (B,).

    Gu et al. 2021, Table 4, give "BCE loss" for capsule lengths, which they call probabilities, and no formula. Each
    term is at most 100, as torch clamps its logarithms; a length above 1 (no squash, or rounding) counts as 1.
    """
    shown = present(labels, scores.shape[1]).to(scores.dtype)
    return F.binary_cross_entropy(scores.clamp(max=1), shown, reduction="none").sum(1)


def _log_loss(logs: Tensor, labels: Tensor) -> Tensor:
    if labels.dim() == 1:
        return F.nll_loss(logs, labels, reduction="none")
    return -logs.gather(1, labels).mean(1)


def reconstruction(rebuilt: Tensor, target: Tensor) -> Tensor:
    """Sum (not mean) of squared differences per image, over all axes but the batch (Sabour et al. 2017, sec. 4.1).

    rebuilt, target: (B, C, H, W), or (B, m, C, H, W) for one picture per label. Returns (B,).
    """
    if rebuilt.shape != target.shape:
        raise ValueError(f"the reconstruction is {tuple(rebuilt.shape)}, its target {tuple(target.shape)}")
    return (rebuilt - target).square().flatten(1).sum(1)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "margin": margin,
    "spread": spread,
    "cross-entropy": cross_entropy,
    "bce": binary_cross_entropy,
    "length-cross-entropy": length_cross_entropy,
    "length-bce": length_binary_cross_entropy,
}
