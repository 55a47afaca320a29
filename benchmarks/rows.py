"""Which trainers take part: featdiff by each of its paths, and peers as the command line names them."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

OWN = ("reference", "reference+tuned", "dense", "compact", "sparse", "sparse-batchtopk", "auto-dense")
"""featdiff's rows. `auto-dense` chooses its path, and starts with 30 % of the features active."""
YARDSTICKS = ("sparse", "auto-dense")
"""Run in every group: what the others are compared with."""


@dataclass(frozen=True)
class Peer:
    """Where a peer comes from, and what it can do."""

    needs: str
    """A file in its folder for one that is given by path, else the module that must be installed."""
    install: str
    """Name in the package index; empty for one that is given by path."""
    variants: tuple[str, ...] = ("",)


PEERS = {
    "ckkissane": Peer("trainer.py", ""),
    "crosscoder_learning": Peer("dictionary_learning/trainers/crosscoder.py", "", ("", "batchtopk")),
    "crosscode": Peer("crosscode/trainers/base_trainer.py", "", ("", "batchtopk")),
    "sae-lens": Peer("sae_lens", "sae-lens", ("", "batchtopk", "autocast")),
    "eai-sparsify": Peer("sparsify", "eai-sparsify"),
}


@dataclass(frozen=True)
class Row:
    """One trainer of a run."""

    name: str
    trainer: str
    """featdiff, or the name of a peer."""
    variant: str
    tuned: bool
    source: str
    """Folder of a peer that is given by path."""
    python: str
    """Interpreter that runs it."""

    @property
    def yardstick(self) -> bool:
        """Whether others are compared with it."""
        return self.name in [f"featdiff {name}" for name in YARDSTICKS]


def rows_of(own: Sequence[str], peers: Sequence[str], tuned: bool, pythons: Sequence[str]) -> list[Row]:
    """The rows that the command line names, featdiff's first; with `tuned` each peer a second time, tuned.

    ValueError where a peer is unknown, not found, or named twice.
    """
    interpreters = dict(_interpreter(text) for text in pythons)
    rows = [own_row(text) for text in own]
    for text in peers:
        row = peer_row(text, interpreters)
        rows.append(row)
        if tuned and not row.tuned:
            rows.append(peer_row(_with_tuned(text), interpreters))
    names = [row.name for row in rows]
    if len(set(names)) < len(names):
        raise ValueError(f"some trainer is named twice among {', '.join(names)}; name each once")
    return rows


def own_row(text: str) -> Row:
    """A row of featdiff."""
    variant, _, tuned = text.partition("+")
    return Row(f"featdiff {text}", "featdiff", variant, bool(tuned), "", sys.executable)


def peer_row(text: str, pythons: dict[str, str]) -> Row:
    """The row of NAME[:VARIANT][+tuned][=PATH]. ValueError where there is no such peer, or where it is not found."""
    name, _, source = text.partition("=")
    trainer, _, tuned = name.partition("+")
    trainer, _, variant = trainer.partition(":")
    if trainer not in PEERS or variant not in PEERS[trainer].variants or tuned not in ("", "tuned"):
        known = [f"{peer}:{kind}" if kind else peer for peer, found in PEERS.items() for kind in found.variants]
        raise ValueError(f"peer {text!r} is unknown; use one of {', '.join(known)}, with +tuned or without")
    peer, python = PEERS[trainer], pythons.get(trainer, sys.executable)
    if peer.install and source:
        raise ValueError(f"{trainer} is taken from an environment, not from {source}; give --python {trainer}=PYTHON")
    if peer.install and not _importable(peer.needs, python):
        raise ValueError(
            f"{trainer} is not installed for {python}; pip install {peer.install} in an environment of its own and "
            f"give --python {trainer}=ITS_PYTHON"
        )
    if not peer.install and not (source and (Path(source) / peer.needs).is_file()):
        raise ValueError(f"no {peer.needs} in {source or 'no folder'}; give --peer {name}=FOLDER, a checkout of it")
    folder = "" if peer.install else str(Path(source).resolve())
    return Row(name, trainer, variant, bool(tuned), folder, python)


def _with_tuned(text: str) -> str:
    name, equals, source = text.partition("=")
    return f"{name}+tuned{equals}{source}"


def _interpreter(text: str) -> tuple[str, str]:
    name, equals, python = text.partition("=")
    if name not in PEERS or not (equals and python):
        raise ValueError(f"--python {text!r} is not NAME=PATH; NAME is one of {', '.join(PEERS)}")
    return name, python


def _importable(module: str, python: str) -> bool:
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    try:
        return subprocess.run([python, "-c", code], check=False).returncode == 0
    except OSError as error:
        raise ValueError(f"{python} cannot be run: {error.strerror}") from error
