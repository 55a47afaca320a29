"""A calibration measures what the clock says, and its file is read by the next estimate."""

import time
from pathlib import Path

import pytest

from featdiff.costs import calibration
from featdiff.costs.hardware import calibration as read
from featdiff.costs.hardware import calibration_file


def test_the_fastest_of_some_calls_counts_and_the_first_does_not() -> None:
    pauses = iter([0.0, 0.03, 0.01, 0.02])
    assert calibration.fastest(lambda: time.sleep(next(pauses)), times=3) == pytest.approx(0.01, abs=0.009)


@pytest.mark.slow
def test_this_machine_is_measured_in_a_minute_and_the_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATDIFF_CALIBRATION", str(tmp_path / "cache" / "calibration.json"))
    start = time.monotonic()
    assert calibration.calibrate("cpu") == calibration_file()
    assert time.monotonic() - start < 60
    found = read()["cpu"]
    assert 1e9 < found["fp32"] < 1e13 and 0 < found["model_share"] <= 1
    assert 1e-6 < found["call"] < 1
