"""The folder of a run: where artifacts lie, what each was made from, and what is stale.

A stage writes one folder. It is written beside its place and renamed when it is whole, so a folder of a stage is
complete or absent. `stage.json` inside it records the fingerprint of everything it was made from: the settings it
reads, the fingerprints of the stages that it builds on, and the files from outside. A stage is stale when that
fingerprint is no longer the wanted one.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

Json = Mapping[str, object] | Sequence[object] | str | int | float | bool | None
Record = dict[str, Any]  # a JSON object that was read: what it holds is known to its writer
State = Literal["done", "stale", "missing"]

RECORD = "stage.json"
LARGE_FILE = 64 * 2**20
PACKAGES = ("featdiff", "torch", "transformers", "trl", "lm-eval", "datasets", "tokenizers", "safetensors", "numpy")


@dataclass(frozen=True)
class Stage:
    """One step of a study: its name, its folder in the run, and what it is made from."""

    name: str
    folder: str
    made_from: dict[str, Json]
    """Whatever decides the result, by a name that `show` can print; the fingerprint is taken of all of it."""

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self.made_from, sort_keys=True).encode()).hexdigest()[:16]


class Run:
    """The results of one study, in a folder; what lies `elsewhere` is given by the first part of its path."""

    def __init__(self, folder: Path, elsewhere: Mapping[str, Path] | None = None) -> None:
        self.folder, self.elsewhere = folder, elsewhere or {}

    def path(self, *parts: str) -> Path:
        """A place in the run."""
        if parts and parts[0] in self.elsewhere:
            return self.elsewhere[parts[0]].joinpath(*parts[1:])
        return self.folder.joinpath(*parts)

    def state(self, stage: Stage) -> State:
        """Whether the stage's folder exists and was made from what is wanted now."""
        record = self.record(stage)
        if record is None:
            return "missing"
        return "done" if record["fingerprint"] == stage.fingerprint else "stale"

    def record(self, stage: Stage) -> Record | None:
        """What the stage's folder says of its making; None when there is no such folder."""
        path = self.path(stage.folder, RECORD)
        if not path.is_file():
            return None
        record = read_json(path)
        if not isinstance(record.get("fingerprint"), str) or not isinstance(record.get("made_from"), dict):
            raise ValueError(
                f"{path} is damaged (it does not say what it was made from); delete its folder and run again"
            )
        return record

    def changed(self, stage: Stage) -> list[str]:
        """Names of what differs between the stage as it was made and as it is wanted."""
        record = self.record(stage)
        made_from = record["made_from"] if record else {}
        names = made_from.keys() | stage.made_from.keys()
        return sorted(name for name in names if made_from.get(name) != stage.made_from.get(name))

    def partial(self, stage: Stage) -> Path:
        """Where the stage is written until it is whole."""
        return self.path(stage.folder + ".partial")

    @contextmanager
    def making(self, stage: Stage, resumable: bool = False) -> Iterator[Path]:
        """A folder to write the stage into; it takes the stage's place when the block ends without an error.

        A resumable stage finds what a killed attempt at the very same stage left there.
        """
        final, partial = self.path(stage.folder), self.partial(stage)
        mark = partial / "fingerprint"
        kept = resumable and mark.is_file() and mark.read_text() == stage.fingerprint
        if partial.exists() and not kept:
            shutil.rmtree(partial)
        partial.mkdir(parents=True, exist_ok=True)
        write_text(mark, stage.fingerprint)
        began = time.time()
        yield partial
        write_json(
            partial / RECORD, {"stage": stage.name, "fingerprint": stage.fingerprint, "made_from": stage.made_from}
        )
        mark.unlink()
        replace_folder(partial, final)
        self._note(stage, began)

    def _note(self, stage: Stage, began: float) -> None:
        path = self.path("provenance.json")
        notes = read_json(path) if path.is_file() else {}
        notes[stage.name] = {
            "fingerprint": stage.fingerprint,
            "began": datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds"),
            "seconds": round(time.time() - began, 1),
            **surroundings(),
        }
        write_json(path, notes)


def surroundings() -> dict[str, Json]:
    """Commit, versions and machine that produced a result."""
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


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
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
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
