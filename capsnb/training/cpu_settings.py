"""Settings that training on a CPU gains from; beyond numbers below 1.2e-38 they change no result.

`Training` calls `keep_pages` when it starts on a CPU, and takes its steps inside `no_denormals`; nothing happens at
import. CAPSNB_KEEP_PAGES=0 and CAPSNB_DENORMALS=1 turn them off.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h


@functools.cache
def keep_pages() -> bool:
    """Have malloc keep what large tensors leave, so that the next step need not fault and zero 100,000 new pages.

    Linux with glibc only; the process then keeps its peak of memory until it ends. Returns whether it was done.
    """
    if os.environ.get("CAPSNB_KEEP_PAGES") == "0" or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    never = 2**31 - 1
    return all(mallopt(*setting) == 1 for setting in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, never), (M_TOP_PAD, 1 << 26)))


@contextmanager
def no_denormals() -> Iterator[None]:
    """Inside, a float32 below 1.2e-38 is zero, in all threads; afterwards this thread is as it was.

    Weight decay by way of Adam takes the weights of dead capsules, and the means of their gradients, down to such
    numbers, each of which costs a CPU a hundred times a normal one: a starved network trains ten times more slowly.
    """
    if os.environ.get("CAPSNB_DENORMALS") == "1":
        yield
        return
    before = (torch.tensor(1e-38) * 0.1).item() == 0  # torch has no other way to ask
    torch.set_flush_denormal(True)
    _renew_threads()
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@functools.cache
def _renew_threads() -> None:
    """Have OpenMP end its threads, which keep the mode that they began with; new ones take over that of the caller."""
    try:
        ctypes.CDLL(None).omp_pause_resource_all(1)
    except (OSError, AttributeError, TypeError):  # another system, or an OpenMP before 5.0
        return


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """Inside, torch computes on so many threads of the CPU; afterwards on as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
