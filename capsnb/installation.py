"""Where capsnb lies: in a checkout of its project, or installed without one; what came with it, and the user's folders.

The project is the folder with the notebooks, their plans and the evidence store. The library does without; what cannot
says so in one sentence. Nothing here depends on the working directory, or on a git repository that it may be in.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
VARIABLE = "CAPSNB_PROJECT"
IMPORT = "CAPSNB_IMPORT"


class MissingExtra(ModuleNotFoundError):
    """A package is not installed that comes with an extra of capsnb."""


def checkout() -> Path | None:
    """The checkout that the package lies in; None where it is installed without one."""
    root = PACKAGE.parent
    # a wheel may be unpacked beside the pyproject.toml of somebody else
    return root if (root / "pyproject.toml").is_file() and (root / "data" / "published").is_dir() else None


def project() -> Path:
    """The folder that CAPSNB_PROJECT names, else the checkout.

    Raises FileNotFoundError where there is neither, ValueError where the folder named is no project.
    """
    if named := os.environ.get(VARIABLE):
        return clone(named)
    if (found := checkout()) is None:
        raise FileNotFoundError(
            "capsnb is installed without its project (notebooks, plans, evidence store): name the folder of a clone "
            f"with --project, or set {VARIABLE}."
        )
    return found


def clone(folder: str | Path) -> Path:
    """The folder, whole, of a clone of the project; ValueError where it is none."""
    found = Path(folder).expanduser().resolve()
    if not (found / "notebooks" / "plans").is_dir():
        raise ValueError(f"{folder} is no clone of capsnb's project: it has no folder notebooks/plans.")
    return found


def has_project() -> bool:
    """Whether there is a project, or one is named."""
    return bool(os.environ.get(VARIABLE)) or checkout() is not None


def shipped(name: str) -> Path:
    """What comes with the package, "checkpoints" or "published": data/NAME of the checkout, else inside the wheel."""
    root = checkout()
    return (root / "data" if root else PACKAGE / "shipped") / name


def own_folder(below: str) -> Path:
    """Where the user's things are kept, "runs" say: below the project, else below the user's own data folder."""
    if has_project():
        return project() / below
    from platformdirs import user_data_path

    return user_data_path("capsnb", appauthor=False) / below


def user_cache() -> Path:
    """The user's own folder for what can be made again."""
    from platformdirs import user_cache_path

    return user_cache_path("capsnb", appauthor=False)


@contextmanager
def environment(name: str, value: str | None) -> Iterator[None]:
    """Inside, a variable for this process and those that it starts, none for None; afterwards it is as it was."""
    before = os.environ.pop(name, None)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


def import_own() -> None:
    """Import the modules that CAPSNB_IMPORT names, with spaces between: what they register is known from then on.

    Called where a process begins that somebody else started: a command, a notebook's kernel, a worker. Raises
    ValueError with one sentence for a module that is not there.
    """
    for name in os.environ.get(IMPORT, "").split():
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"{IMPORT} names {name}, which cannot be imported ({error}): is it on PYTHONPATH?"
            ) from error


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Around imports of packages that come with an extra: one sentence that names it where one is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "capsnb"):
            raise
        raise MissingExtra(
            f"{missing} is not installed; `pip install 'capsnb[{name}]'` brings it", name=missing
        ) from error
