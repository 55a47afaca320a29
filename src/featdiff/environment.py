"""Commit, versions and machine that produce a result."""

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

PACKAGES = ("featdiff", "torch", "transformers", "trl", "lm-eval", "datasets", "tokenizers", "safetensors", "numpy")


@dataclass(frozen=True)
class Surroundings:
    """Commit, versions and machine that produced a result."""

    commit: str | None
    """None outside a git repository."""
    python: str
    machine: str
    versions: dict[str, str]
    """By package."""


def surroundings() -> Surroundings:
    """Commit, versions and machine of this process."""
    return Surroundings(
        commit=_commit(),
        python=platform.python_version(),
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        versions={name: metadata.version(name) for name in PACKAGES if any(metadata.distributions(name=name))},
    )


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
