"""`demo`: the study that ships with featdiff, and its inputs."""

from importlib.resources import files
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]


def demo_study() -> Path:
    """The demo's study file: beside the package in an installation, under studies/ in the repository."""
    installed = Path(str(files("featdiff.demo"))) / "demo.toml"
    return installed if installed.is_file() else REPOSITORY / "studies" / "demo.toml"
