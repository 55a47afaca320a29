"""Sentences follow from the numbers by fixed rules; each rule is tried on both sides."""

from dataclasses import replace

from featdiff.report.data import ReportData
from featdiff.report.findings import caveats


def test_the_caveats_name_the_numbers_of_this_study(study: ReportData) -> None:
    text = " ".join(caveats(study))

    assert "The 427 critical items were chosen because the base fails and rl succeeds" in text
    assert "holds 60 items" in text
    assert "random sets would share 2.6 %" in text


def test_a_measured_noise_floor_silences_its_caveat(study: ReportData) -> None:
    measured = [replace(panel, noise_floor=0.9) for panel in study.dynamics]

    assert "measured twice" not in " ".join(caveats(replace(study, dynamics=measured)))
