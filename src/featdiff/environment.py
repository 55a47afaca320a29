"""Commit, versions and machine that produce a result."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from featdiff.files import Json

PACKAGES = ("featdiff", "torch", "transformers", "trl", "lm-eval", "datasets", "tokenizers", "safetensors", "numpy")


def surroundings() -> dict[str, Json]:
    """Commit, versions and machine that produced a result."""
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "versions": {name: metadata.version(name) for name in PACKAGES if any(metadata.distributions(name=name))},
    }


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
