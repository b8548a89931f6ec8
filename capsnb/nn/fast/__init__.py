"""Gradients written by hand for what a CPU spends its time on, each behind a plain way of torch's own.

    toom_cook    wide convolutions by products of polynomials; `convolution.Conv2d` takes them where `pays` says so
    votes        the readings of votes in a routing, which share one gradient; plain: an einsum for each
    moments      mean and variance of EM's votes without keeping their squares; plain: sums of products

`CAPSNB_FAST=0` in the environment switches all of it off, `CAPSNB_FASTCONV=0` the convolution alone. The same numbers
come out up to rounding, more slowly, and can be differentiated more than once. While torch.compile traces, votes and
moments are plain too: a compiler plans the same gradient itself. Nothing outside `capsnb.nn` imports from here.
"""

import os

import torch


def switched_off() -> bool:
    """Whether CAPSNB_FAST=0 asks for torch's own ways."""
    return os.environ.get("CAPSNB_FAST") == "0"


def refuse_graph(what: str) -> None:
    """RuntimeError in a backward pass with create_graph: of a backward written by hand it would give wrong numbers."""
    if torch.is_grad_enabled():
        raise RuntimeError(f"{what} can be differentiated once only: create_graph=True is not possible here")
