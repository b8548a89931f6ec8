"""Under which circumstances a number was made: code, library versions, device, date."""

from __future__ import annotations

import functools
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from capsnb import __version__
from capsnb.installation import checkout

LIBRARIES = ("torch", "torchvision", "numpy", "scipy")
STORE = "results/observations"  # of the project


def circumstances() -> dict[str, Any]:
    """Code, library versions, device and date of a run that is made now."""
    return {
        "code": code_version(),
        "versions": dict(versions()),
        "device": device_name(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def device_name() -> str:
    """The device that `auto` takes, in words: "NVIDIA H100 80GB HBM3", or "CPU (x86_64, 2 threads)"."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU ({platform.machine()}, {torch.get_num_threads()} threads)"


@functools.cache
def cpu_name() -> str:
    """The kind of CPU, with the vector instructions that torch takes of it: only the same kind gives the same bits."""
    named = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        found = (
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        )
        named = next(found, named)
    return f"{named}, {torch.backends.cpu.get_cpu_capability()}"


@functools.cache
def versions() -> dict[str, str]:
    """Versions of Python, capsnb and the libraries that results depend on."""
    found = {"python": platform.python_version(), "capsnb": __version__}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def code_version(folder: Path | None = None) -> str:
    """The commit of the code, marked -dirty with uncommitted changes; outside a checkout the package's version.

    What is recorded in the evidence store is no change of the code.
    """
    folder = folder or checkout()
    if folder is None or not (folder / ".git").exists():
        return __version__

    def git(*words: str) -> str:
        command = ("git", "--no-optional-locks", "-C", str(folder), *words)
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", f":(exclude){STORE}")
        return git("describe", "--always") + ("-dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return __version__
