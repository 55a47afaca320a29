"""Files of a run: JSON and typed results, written whole; and what a file or folder holds, as a hash.

A result is a frozen dataclass, and the dataclass is the schema of its JSON file: `save(result, path)` writes it,
`load(Type, path)` reads it, everywhere. An undefined number is None, and null in the file.
"""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

Json = Mapping[str, object] | Sequence[object] | str | int | float | bool | None
Record = dict[str, Any]  # a JSON object that was read: what it holds is known to its writer
Result = TypeVar("Result")

LARGE_FILE = 64 * 2**20


def save(result: object, path: Path) -> None:
    """Write a result, a frozen dataclass, as JSON."""
    write_json(path, as_json(result))


def load(kind: type[Result], path: Path) -> Result:
    """Read a result of type `kind`.

    Raises ValueError, in one line, for a file that is missing or damaged, or that holds something else.
    """
    return _checked(TypeAdapter(kind).validate_python, read_json(path), path)


def load_by_name(kind: type[Result], path: Path) -> dict[str, Result]:
    """Read a JSON object whose values are results of type `kind`; errors are those of `load`."""
    validate = TypeAdapter(kind).validate_python
    return {name: _checked(validate, content, path) for name, content in read_json(path).items()}


def _checked(validate: Callable[[object], Result], content: object, path: Path) -> Result:
    try:
        return validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ValueError(f"{path} is damaged ({where}: {first['msg']}); delete its folder and run again") from None


def as_json(value: object) -> Json:
    """A result as plain JSON; undefined numbers become null.

    >>> as_json({"share": float("nan"), "counts": (1, 2)})
    {'share': None, 'counts': [1, 2]}
    """
    if isinstance(value, float):
        return None if value != value else value
    if value is None or isinstance(value, str | int):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [as_json(item) for item in value]
    tolist = getattr(value, "tolist", None)  # of a tensor or an array
    if callable(tolist):
        return as_json(tolist())
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete its folder and run again") from None


def replace_folder(new: Path, place: Path) -> None:
    """Put the folder `new` in the place of `place`; at no moment is a half-written folder there."""
    old = place.with_name(place.name + ".old")
    if old.exists():
        shutil.rmtree(old)
    if place.exists():
        place.rename(old)
    new.rename(place)
    if old.exists():
        shutil.rmtree(old)


def write_text(path: Path, text: str) -> None:
    """Write a file whole: beside its place first, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def write_json(path: Path, content: Json) -> None:
    """Write JSON whole; keys stay in their order, which is that of models and tasks."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Record:
    """A JSON object; ValueError in one line when the file is not one."""
    try:
        content = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged ({error}); delete its folder and run again") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged (no JSON object); delete its folder and run again")
    return content


def content_fingerprint(path: Path) -> str:
    """A hash of a file or folder: of names and bytes; of files over 64 MiB, of size and time of change."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(str(file.relative_to(path)).encode())
            digest.update(_file_digest(file))
    return digest.hexdigest()[:16]


def _file_digest(file: Path) -> bytes:
    status = file.stat()
    if status.st_size > LARGE_FILE:
        return f"{status.st_size} {status.st_mtime_ns}".encode()
    return hashlib.sha256(file.read_bytes()).digest()
