"""One tiny study, run from beginning to end once, for every test of the pipeline."""

import shutil
from pathlib import Path

import pytest
from tiny_study import changed, write_tiny_study

from featdiff.config.study_file import read_study
from featdiff.pipeline.plan import Plan
from featdiff.pipeline.verbs import run_study


@pytest.fixture(scope="session")
def study_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study file, its models, texts and tasks beside it. Not to be changed."""
    return write_tiny_study(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny(study_file: Path) -> Plan:
    """The study after `run`. Its run folder is not to be changed."""
    plan = Plan(changed(read_study(study_file), runs=str(study_file.parent / "runs")))
    run_study(plan.study)
    return plan


@pytest.fixture
def fresh(study_file: Path, tmp_path: Path) -> Plan:
    """The study before anything was made of it, in a folder of the test's own."""
    return Plan(changed(read_study(study_file), runs=str(tmp_path / "runs")))


@pytest.fixture
def own(tiny: Plan, fresh: Plan) -> Plan:
    """A copy of the whole run, for a test that changes it."""
    shutil.copytree(tiny.run.folder, fresh.run.folder)
    return fresh
