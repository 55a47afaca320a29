"""Paths of models, folders or hub ids, and checks of them before a model is read."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open


def location(path: str) -> str:
    """Path to give to transformers: the folder, or the hub id as it is."""
    folder = Path(path).expanduser()
    return str(folder) if folder.exists() else path


def identity(path: str) -> str:
    """Name of a model that is the same for all ways of writing its folder."""
    folder = Path(path).expanduser()
    return str(folder.resolve()) if folder.exists() else path


def refuse_absent(path: str) -> None:
    """Raise ValueError unless there is a model folder at `path`, or it may be a hub id."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ValueError(f"{path} holds no config.json; give a model folder in Hugging Face form")
    elif folder.exists():
        raise ValueError(f"{path} is a file; give the model's folder")
    elif path.startswith((".", "~", os.sep)) or path.count("/") > 1:
        raise ValueError(f"the model folder {path} does not exist; check the path")


def refuse_corrupted(path: str) -> None:
    """Raise ValueError for a weights file that is cut short or no safetensors file."""
    for file in sorted(Path(path).expanduser().glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt"):
                pass
        except SafetensorError as error:
            raise ValueError(f"{file} is not a whole safetensors file ({error}); copy or save it again") from error


@contextmanager
def one_line(doing: str) -> Generator[None]:
    """Turn what transformers raises for a bad model into one line."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        reason = " ".join(str(error).split()).partition(". ")[0].rstrip(".")
        raise ValueError(f"{doing}: {reason}; check the folder or hub id") from error
