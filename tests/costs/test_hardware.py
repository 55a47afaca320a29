"""Devices come from a table, over which go the numbers that were measured on this machine."""

import json
import os
from pathlib import Path

import pytest
from tiny_study import changed

from featdiff.config.study import Study
from featdiff.config.study_file import validated
from featdiff.costs.hardware import hardware_of, kinds


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setenv("FEATDIFF_CALIBRATION", str(tmp_path / "calibration.json"))
    sources = [{"path": "o/text", "share": 1.0}]
    lineup = {"base": "o/base", "tuned": {"rl": "o/rl"}}
    return validated({"name": "x", "lineup": lineup, "corpus": {"sources": sources}}, "test")


def test_the_kind_follows_the_studys_device(study: Study) -> None:
    assert hardware_of(study, None, 1).kind.startswith("cpu")
    assert hardware_of(changed(study, lineup__device="cuda"), None, 1).kind == "H200"
    assert hardware_of(study, "A100", 3).devices == 3
    assert [hardware_of(study, kind, 1).on_gpu for kind in kinds()] == [kind != "cpu" for kind in kinds()]


def test_a_cpu_has_the_studys_threads_and_the_machines_memory(study: Study) -> None:
    one, four = (hardware_of(changed(study, threads=threads), "cpu", 1) for threads in (1, 4))
    assert four.fp32 == 4 * one.fp32 and four.bandwidth == 4 * one.bandwidth and four.call == one.call
    assert one.memory == four.memory == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_measured_numbers_go_over_those_of_the_table(study: Study, tmp_path: Path) -> None:
    before = hardware_of(changed(study, threads=2), "cpu", 1)
    (tmp_path / "calibration.json").write_text(json.dumps({"cpu": {"fp32": 1e9, "call": 7.0}}))
    after = hardware_of(changed(study, threads=2), "cpu", 1)
    assert (after.fp32, after.call, after.bf16) == (2e9, 7.0, before.bf16)
    assert after.calibrated and not before.calibrated and not hardware_of(study, "H200", 1).calibrated


@pytest.mark.parametrize("text", ["{", "[]", '{"cpu": {"fp32": "fast"}}', '{"cpu": {"fp32": 0}}', '{"cpu": {"x": 1}}'])
def test_a_broken_calibration_is_refused(study: Study, tmp_path: Path, text: str) -> None:
    (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(ValueError, match="measure again: featdiff plan --calibrate"):
        hardware_of(study, "cpu", 1)


@pytest.mark.parametrize(
    ("kind", "devices", "said"),
    [
        ("T1000", 1, "--kind T1000 is not known; give one of H200, H100"),
        ("any", 1, "--kind any is not known"),
        ("H200", 0, "--gpus is 0"),
        ("cpu", 2, "just 1 with --kind cpu"),
    ],
)
def test_what_cannot_be_is_refused(study: Study, kind: str, devices: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        hardware_of(study, kind, devices)
