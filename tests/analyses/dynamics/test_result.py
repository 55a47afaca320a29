"""Overlaps of checkpoints as a result: read back as they were written, and divided by the floor."""

from pathlib import Path

import pytest
from made_up_dynamics import made_up, of, one_seed

from featdiff.analyses.dynamics.result import Dynamics
from featdiff.files import load, save


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    found = of(made_up(), one_seed("swap"), missing={"joint": "no crosscoder"})
    save(found, tmp_path / "rl.json")
    assert load(Dynamics, tmp_path / "rl.json") == found


def test_a_result_holds_the_shifts_of_the_counted_features_and_no_more() -> None:
    assert made_up().rank_shift == ((0.0, 1.0, None),) and made_up().top == 4


def test_overlaps_are_divided_by_the_floor_of_both_checkpoints() -> None:
    one = made_up()
    assert one.relative is not None and one.floors == pytest.approx((0.8, 0.5))
    assert one.adjacent_relative == [pytest.approx(0.4 / (0.8 * 0.5) ** 0.5)] and one.relative[0][0] == pytest.approx(1)
    assert made_up("same_seed_index").ends_relative == pytest.approx(0.6 / (0.8 * 0.5) ** 0.5)
    assert one_seed().ends_relative is None and one_seed().adjacent_relative == []


def test_the_joint_alignment_is_the_main_one_wherever_it_stands() -> None:
    assert of(made_up("swap"), made_up("joint")).main.alignment == "joint"
    assert of(made_up("swap"), made_up("matched")).main.alignment == "swap"
