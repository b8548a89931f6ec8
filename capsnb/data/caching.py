"""Small files that spare work the next time; where one cannot be kept, nothing is lost but the time."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def user_cache() -> Path:
    """The user's own folder for what can be made again."""
    from platformdirs import user_cache_path

    return user_cache_path("capsnb", appauthor=False)


def keep(file: Path, content: bytes) -> None:
    """Write a file whole or not at all; a folder that cannot be written is no error."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        try:
            with os.fdopen(handle, "wb") as opened:
                opened.write(content)
            os.chmod(temporary, 0o644)
            os.replace(temporary, file)
        except OSError:
            os.unlink(temporary)
