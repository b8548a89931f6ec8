"""Keeping pages: fewer page faults, an off switch, nothing done elsewhere. Denormals: none inside, in any thread."""

import subprocess
import sys

import pytest
import torch

from capsnb.training.cpu_settings import keep_pages, no_denormals

FAULTS = """
import resource, torch
from capsnb.training.cpu_settings import keep_pages

kept = keep_pages()
for step in range(60):
    if step == 50:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(1 << 24)
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults() -> tuple[bool, int]:
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    kept, count = map(int, done.stdout.split())
    return bool(kept), count


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc is Linux's")
def test_large_tensors_reuse_pages(monkeypatch):
    kept, count = faults()
    if not kept:
        pytest.skip("this libc has no mallopt")
    monkeypatch.setenv("CAPSNB_KEEP_PAGES", "0")
    left, many = faults()
    assert not left
    assert count < many / 100


def test_elsewhere_nothing_is_done(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_pages.__wrapped__()


def survives() -> bool:
    return (torch.tensor(1e-38) * 0.1).item() != 0


def test_inside_denormals_are_zero_and_afterwards_they_are_not():
    assert survives()
    with no_denormals():
        assert not survives()
        assert (torch.tensor(1e-37) * 0.5).item() == pytest.approx(5e-38)
    assert survives()
    with pytest.raises(KeyError), no_denormals():
        raise KeyError
    assert survives()


def test_who_has_switched_them_off_keeps_that():
    torch.set_flush_denormal(True)
    try:
        with no_denormals():
            pass
        assert not survives()
    finally:
        torch.set_flush_denormal(False)


def test_denormals_can_be_kept(monkeypatch):
    monkeypatch.setenv("CAPSNB_DENORMALS", "1")
    with no_denormals():
        assert survives()


THREADS = """
import torch
from capsnb.training.cpu_settings import no_denormals

torch.set_num_threads(2)
numbers = torch.full((1 << 22,), 1e-37)
assert (numbers * 0.01).count_nonzero() == len(numbers)  # the threads are there, and keep denormals
with no_denormals():
    print(int((numbers * 0.01).count_nonzero()))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only of GNU's OpenMP it is known")
def test_threads_that_there_were_before_have_none_either():
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0"]
