"""The selected features under other seeds, as the page says it."""

from dataclasses import replace
from pathlib import Path

from featdiff.report.data import ChosenStability, FoundAgain, ReportData
from featdiff.report.page import write_report


def test_the_final_set_says_how_many_of_it_are_stable(study: ReportData, tmp_path: Path) -> None:
    features = [FoundAgain(3, 2, 0.71, 0.02), FoundAgain(17, 1, 0.6, None), FoundAgain(40, 0, None, None)]
    chosen = ChosenStability("rl", 2, 2, features)
    page = write_report(replace(study, chosen_stability=chosen), tmp_path).read_text()
    assert "1 of the 3 selected features is stable: found again in at least 2 of 2 other seeds." in page
    assert "0.71 ± 0.02</td>" in page and "1 of 2</td>" in page
    few = write_report(replace(study, chosen_stability=replace(chosen, other_seeds=1)), tmp_path / "few").read_text()
    assert "With 1 other seed no feature can be called stable; that takes 2." in few
