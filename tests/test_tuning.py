"""Keeping pages: fewer page faults, an off switch, nothing done elsewhere."""

import subprocess
import sys

import pytest

from capsnb.tuning import keep_pages

FAULTS = """
import resource, torch
from capsnb.tuning import keep_pages

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
