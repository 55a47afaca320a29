"""The folder of a run: where artifacts lie, what each was made from, and what is stale.

A stage writes one folder. It is written beside its place and renamed when it is whole, so a folder of a stage is
complete or absent. `stage.json` inside it records the fingerprint of everything it was made from: the settings it
reads, the fingerprints of the stages that it builds on, and the files from outside. A stage is stale when that
fingerprint is no longer the wanted one.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from featdiff.environment import Surroundings, surroundings
from featdiff.files import Json, Record, as_json, read_json, replace_folder, write_json, write_text

State = Literal["done", "stale", "missing"]

RECORD = "stage.json"


@dataclass(frozen=True)
class StagePlan:
    """One step of a study: its name, its folder in the run, and what it is made from."""

    name: str
    folder: str
    made_from: dict[str, Json]
    """Whatever decides the result, by a name that `show` can print; the fingerprint is taken of all of it."""

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self.made_from, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class StageNote(Surroundings):
    """How one stage was made: an entry of provenance.json."""

    fingerprint: str
    began: str
    seconds: float
    method: int | None = None
    """That of the registry; None in notes of versions that did not number methods."""


class Run:
    """The results of one study, in a folder; what lies `elsewhere` is given by the first part of its path."""

    def __init__(self, folder: Path, elsewhere: Mapping[str, Path] | None = None) -> None:
        self.folder, self.elsewhere = folder, elsewhere or {}

    def path(self, *parts: str) -> Path:
        """A place in the run."""
        if parts and parts[0] in self.elsewhere:
            return self.elsewhere[parts[0]].joinpath(*parts[1:])
        return self.folder.joinpath(*parts)

    def state(self, stage: StagePlan) -> State:
        """Whether the stage's folder exists and was made from what is wanted now."""
        record = self.record(stage)
        if record is None:
            return "missing"
        return "done" if record["fingerprint"] == stage.fingerprint else "stale"

    def record(self, stage: StagePlan) -> Record | None:
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

    def made_from(self, stage: StagePlan) -> Record:
        """What the stage was made from; empty where it has not been."""
        record = self.record(stage)
        return record["made_from"] if record else {}

    def changed(self, stage: StagePlan) -> list[str]:
        """Names of what differs between the stage as it was made and as it is wanted."""
        made_from = self.made_from(stage)
        names = made_from.keys() | stage.made_from.keys()
        return sorted(name for name in names if made_from.get(name) != stage.made_from.get(name))

    def partial(self, stage: StagePlan) -> Path:
        """Where the stage is written until it is whole."""
        return self.path(stage.folder + ".partial")

    @contextmanager
    def making(self, stage: StagePlan, resumable: bool = False) -> Generator[Path]:
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

    def _note(self, stage: StagePlan, began: float) -> None:
        path = self.path("provenance.json")
        notes = read_json(path) if path.is_file() else {}
        method = stage.made_from.get("method")
        note = StageNote(
            **vars(surroundings()),
            fingerprint=stage.fingerprint,
            began=datetime.fromtimestamp(began, UTC).isoformat(timespec="seconds"),
            seconds=round(time.time() - began, 1),
            method=method if isinstance(method, int) else None,
        )
        notes[stage.name] = as_json(note)
        write_json(path, notes)
