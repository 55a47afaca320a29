"""The comparison of an estimate with a run reads that run's record and folders."""

import json
from pathlib import Path

import pytest
from estimate import compared
from tiny_study import changed, write_tiny_study

from featdiff.config.study_file import read_study
from featdiff.run.plan import Plan


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(changed(read_study(write_tiny_study(tmp_path)), runs=str(tmp_path / "runs")))


def test_seconds_and_bytes_are_those_of_the_run(plan: Plan) -> None:
    (plan.run.path("crosscoders") / "joint").mkdir(parents=True)
    plan.run.path("crosscoders", "joint", "crosscoder.safetensors").write_bytes(b"x" * 70)
    plan.run.path("crosscoders", "stream.json").write_bytes(b"x" * 30)
    plan.run.path("provenance.json").write_text(json.dumps({"train": {"seconds": 12.5}, "report": {"seconds": 1}}))
    (row,) = compared(plan)
    assert (row.stage, row.seconds[1], row.stays[1]) == ("train", 12.5, 100)
    assert row.seconds[0] > 0 and row.stays[0] > 0


def test_a_study_that_was_not_run_is_refused(plan: Plan) -> None:
    with pytest.raises(ValueError, match="run the study first"):
        compared(plan)
