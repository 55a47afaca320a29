"""Drift as a result: what is written is read back, and where each model was read."""

from pathlib import Path

from made_up_drift import CONTROL, CONTROLLED, DRIFT

from featdiff.analyses.drift.result import Drift
from featdiff.files import load, save


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    save(CONTROLLED, tmp_path / "drift.json")
    assert load(Drift, tmp_path / "drift.json") == CONTROLLED


def test_tuned_models_are_read_in_their_own_place_and_the_control_in_theirs() -> None:
    assert DRIFT.places == CONTROLLED.places == ["sft", "rl"] and CONTROLLED.controls == ["rft"]
    assert CONTROL.read_in("rl") == {"0.8": 7, "0.9": 0, "measured": 690} and CONTROL.read_in("rft") is None
    assert DRIFT.rows[0].read_in("sft") is not None and DRIFT.rows[0].read_in("rl") is None


def test_models_of_a_kind_stand_by_rising_kl_and_the_lowest_cut_counts() -> None:
    assert [row.name for row in DRIFT.of("sft", "interpolation", "model", "matched")] == [
        "<sft> matched",
        "sft x 0.5",
        "sft",
    ]
    assert DRIFT.cut == "0.8"
