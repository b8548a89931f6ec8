"""The file of a sweep: one line of JSON per finished cell.

A line is written whole and flushed to the disk before the next cell counts. What a kill leaves of a line has no line
end: readers pass over it and the next writer removes it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two sweeps from one file there
    fcntl = None

Row = dict[str, Any]
START = b'{"digest": "'  # of every line


def read(file: str | Path) -> list[Row]:
    """The rows of a sweep's file, one per cell in the order in which they came; of a cell tried again the last counts.

    May be called while the sweep runs. Raises FileNotFoundError, ValueError for a file that no sweep wrote.
    """
    rows: dict[str, Row] = {}
    for number, line in enumerate(_whole_lines(file, Path(file).read_bytes()), 1):
        try:
            row = json.loads(line)
            rows[row["digest"]] = row
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{file}, line {number}, is not a row of a sweep: give another file.") from error
    return list(rows.values())


class Table:
    """A sweep's file, open for appending; no other sweep can open it meanwhile."""

    def __init__(self, file: str | Path) -> None:
        self.file = Path(file)
        self._stream: BinaryIO | None = None

    def __enter__(self) -> Self:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise ValueError(f"{self.file} cannot be: a file lies where its folder would.") from error
        self._stream = self.file.open("a+b")
        try:
            if fcntl is not None:
                fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            read(self.file)  # refuses a file that is no sweep's before anything in it is changed
            self._stream.seek(0)
            self._stream.truncate(sum(map(len, _whole_lines(self.file, self._stream.read()))))
        except BlockingIOError as error:
            self._stream.close()
            raise ValueError(f"Another sweep is writing to {self.file}: wait for it or give another file.") from error
        except BaseException:
            self._stream.close()
            raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stream.close()

    def append(self, row: Row) -> None:
        """Write a row, whole; its first key is the digest. Returns once it is on the disk."""
        line = json.dumps(row).encode() + b"\n"
        if not line.startswith(START):
            raise ValueError(f"a row starts with its digest, not with {next(iter(row), None)!r}")
        self._stream.write(line)
        self._stream.flush()
        os.fsync(self._stream.fileno())


def _whole_lines(file: str | Path, content: bytes) -> list[bytes]:
    """Lines with their ends, without a torn last one; ValueError when that is not the beginning of a row."""
    *lines, rest = content.split(b"\n")
    if rest[: len(START)] != START[: len(rest)]:
        raise ValueError(f"{file} does not end in a row of a sweep: give another file.")
    return [line + b"\n" for line in lines]
