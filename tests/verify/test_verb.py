"""featdiff verify: a table or records on stdout, and an exit code that says whether all passed."""

import json

import pytest

from featdiff.verify import Check
from featdiff.workflow.cli import main


def ran(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as end:
        main(["verify", *arguments])
    said = capsys.readouterr()
    return end.value.code, said.out, said.err


@pytest.fixture
def seeds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds that were asked for; a check passes under seed 0 alone."""
    asked: list[int] = []

    def verify(seed: int) -> list[Check]:
        print("a library prints")
        asked.append(seed)
        return [Check("T1", "a number", 0.0, float(seed))]

    monkeypatch.setattr("featdiff.verify.verify", verify)
    return asked


def test_a_table_and_exit_code_0_where_all_passed(capsys: pytest.CaptureFixture[str], seeds: list[int]) -> None:
    code, out, err = ran(capsys)
    assert code == 0 and seeds == [0] and err == "a library prints\n"
    assert out.startswith("test") and out.endswith("1 of 1 checks passed\n")


def test_records_and_exit_code_1_where_one_failed(capsys: pytest.CaptureFixture[str], seeds: list[int]) -> None:
    for arguments in (("--json", "--seed", "7"), ("--seed", "7", "--json")):
        code, out, _ = ran(capsys, *arguments)
        assert code == 1 and seeds[-1] == 7
        assert json.loads(out) == [Check("T1", "a number", 0.0, 7.0).record()]


@pytest.mark.parametrize("arguments", [("--seed",), ("--seed", "x"), ("--seed", "-1"), ("study.toml",)])
def test_other_arguments_are_refused_with_the_usage(
    capsys: pytest.CaptureFixture[str], seeds: list[int], arguments: tuple[str, ...]
) -> None:
    code, out, err = ran(capsys, *arguments)
    assert code == 2 and out == "" and not seeds
    assert err == "featdiff: usage: featdiff verify [--seed N] [--json]\n"


def test_help_needs_no_world(capsys: pytest.CaptureFixture[str], seeds: list[int]) -> None:
    code, out, _ = ran(capsys, "--help")
    assert code == 0 and "--seed N" in out and not seeds
