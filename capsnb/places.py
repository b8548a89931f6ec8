"""Where the project's own folders are."""

from pathlib import Path


def project() -> Path:
    """The checkout that the package lies in, else (installed without one) the working directory."""
    checkout = Path(__file__).resolve().parents[1]
    return checkout if (checkout / "pyproject.toml").exists() else Path.cwd()
