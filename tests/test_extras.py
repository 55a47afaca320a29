"""What an extra of pyproject.toml installs is what the code behind it imports."""

import ast
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import packages_distributions, requires
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytest.importorskip("lm_eval")

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def imported(file: Path) -> set[str]:
    """Packages that a module imports when it is itself imported; not those inside functions or for types alone."""
    found = set()
    for statement in ast.parse(file.read_text()).body:
        if isinstance(statement, ast.Import):
            found |= {alias.name.split(".")[0] for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
            found.add(statement.module.split(".")[0])
    return found - sys.stdlib_module_names - {"featdiff"}


def installed(requirements: Iterable[str]) -> set[str]:
    """The distributions that these requirements bring, with all that those require in turn."""
    found: set[str] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        one = waiting.pop()
        name = canonicalize_name(one.name)
        if name in found or not (one.marker is None or one.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        waiting += [Requirement(text) for text in requires(name) or []]
    return found


def missing(files: Iterable[Path], requirements: Iterable[str]) -> set[str]:
    """Packages that the files import and the requirements do not bring."""
    brought, distributions = installed(requirements), packages_distributions()
    needed = set[str]().union(*map(imported, files))
    return {package for package in needed if not brought & {canonicalize_name(name) for name in distributions[package]}}


def evaluation() -> list[Path]:
    """The model of lm-eval that evaluation runs, and evaluation itself."""
    spec = find_spec("lm_eval.models.huggingface")
    assert spec is not None and spec.origin is not None
    return [Path(spec.origin), *(ROOT / "src/featdiff/evaluation").glob("*.py")]


def test_the_extra_for_evaluation_brings_all_that_evaluation_imports() -> None:
    assert missing(evaluation(), PROJECT["dependencies"] + EXTRAS["eval"]) == set()


def test_what_the_base_lacks_for_evaluation_is_seen() -> None:
    assert missing(evaluation(), PROJECT["dependencies"]) >= {"accelerate", "lm_eval", "math_verify"}


def test_the_extra_for_post_training_brings_all_that_post_training_imports() -> None:
    pytest.importorskip("trl")
    files = (ROOT / "src/featdiff/posttraining").glob("*.py")
    assert missing(files, PROJECT["dependencies"] + EXTRAS["posttrain"]) == set()
