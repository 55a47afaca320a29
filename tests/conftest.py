"""What every test shares: one thread, and the same random numbers in each."""

import os

# Also for the processes that tests start. Tensors here are tiny: a second thread only costs. Nothing may be downloaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

if TYPE_CHECKING:
    from featdiff.report.page import Heading
    from featdiff.run.plan import Plan

torch.set_num_threads(1)
# Without a GPU, programs written in Triton run on the CPU; triton looks at this when it is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Seed the global generators, on which no code of ours should depend."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


# Imports stand inside: this file is read before the package's calls are checked.


@pytest.fixture(scope="session")
def study_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study file, its models, texts and tasks. Not to be changed."""
    from tiny_study import write_tiny_study

    return write_tiny_study(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny(study_file: Path) -> "Plan":
    """The study after `run`. Its run folder is not to be changed."""
    from tiny_study import changed

    from featdiff.config.study_file import read_study
    from featdiff.run.plan import Plan
    from featdiff.workflow.runner import run_study

    plan = Plan(changed(read_study(study_file), runs=str(study_file.parent / "runs")))
    run_study(plan.study)
    return plan


@pytest.fixture
def fresh(study_file: Path, tmp_path: Path) -> "Plan":
    """The study before anything was made of it, in a folder of the test's own."""
    from tiny_study import changed

    from featdiff.config.study_file import read_study
    from featdiff.run.plan import Plan

    return Plan(changed(read_study(study_file), runs=str(tmp_path / "runs")))


@pytest.fixture
def own(tiny: "Plan", fresh: "Plan") -> "Plan":
    """A copy of the whole run, for a test that changes it."""
    shutil.copytree(tiny.run.folder, fresh.run.folder)
    return fresh


@pytest.fixture(scope="session")
def study() -> "Heading":
    """The heading of a made-up study, for tests of how results are shown."""
    from featdiff.report.page import Heading

    return Heading("demo", ("base", "sft", "rl"))
