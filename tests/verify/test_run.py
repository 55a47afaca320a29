"""The acceptance tests of the method, each world once; other seeds: featdiff verify --seed N."""

import json
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from featdiff.verify import verify
from featdiff.verify.check import Check
from featdiff.verify.exact import exact
from featdiff.verify.null import null

TRAINED = ("T2", "T3", "T4", "T5", "T6", "T7", "T8", "T14", "T15", "gains", "rl-only", "drift")


@pytest.mark.parametrize("experiment", [exact, null], ids=["exact", "null"])
def test_what_needs_no_training_is_as_known(experiment: Callable[[int], list[Check]]) -> None:
    assert not [check.record() for check in experiment(1) if not check.passed]


@pytest.fixture(scope="module")
def records() -> list[dict[str, object]]:
    """What the program prints. Its own process has no checks of shapes, which treble the cost of so small a step."""
    done = subprocess.run([sys.executable, "-m", "featdiff", "verify", "--json"], capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("test", TRAINED)
def test_what_was_planted_is_found(records: list[dict[str, object]], test: str) -> None:
    mine = [record for record in records if record["test"] == test]
    assert mine and not [record for record in mine if not record["passed"]]


def test_verify_says_on_stderr_where_it_is_and_gives_the_threads_back(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    checks = verify(3, [exact])
    said = capsys.readouterr()
    assert said.out == "" and said.err == "[1/1] exact\n"
    assert [check.record() for check in checks] == [check.record() for check in exact(3)]
    assert torch.get_num_threads() == threads
