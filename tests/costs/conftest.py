"""Grounds of an estimate: of the study that was run, and of the paper's."""

from pathlib import Path

import pytest

from featdiff.config.study_file import read_study
from featdiff.costs.estimate_inputs import Ground, ground_of
from featdiff.costs.options import PlanOptions
from featdiff.run.plan import Plan

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture
def ran(tiny: Plan) -> Ground:
    """The tiny study, whose run can be looked at."""
    return ground_of(tiny.study, PlanOptions(assume={"items": 48.0}))


@pytest.fixture
def paper() -> Ground:
    """Qwen3-4B-Base with the paper's settings, on one H200."""
    return ground_of(read_study(STUDIES / "qwen3-4b.toml"), PlanOptions())
