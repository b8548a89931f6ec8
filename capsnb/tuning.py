"""A setting of the process that training on a CPU gains from; it changes no result.

`Training` calls `keep_pages` when it starts on a CPU; nothing happens at import. CAPSNB_KEEP_PAGES=0 turns it off.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys

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
