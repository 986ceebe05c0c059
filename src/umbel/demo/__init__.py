"""The small trained models that ship with the package."""

from pathlib import Path

FOLDERS = {"demo": "model", "draft": "draft"}


def path(name: str = "demo") -> Path:
    """The Hugging Face folder of "demo" (the model) or "draft" (its drafter)."""
    if name not in FOLDERS:
        raise KeyError(f"no demo model named {name!r}; there are {', '.join(FOLDERS)}")
    return Path(__file__).resolve().parent / FOLDERS[name]
