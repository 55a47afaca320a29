"""Trajectories with floors, several seeds and missing alignments, as the page tells them."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from featdiff.analyses.dynamics.result import (
    READINGS,
    TITLES,
    DynamicsPanel,
)
from featdiff.attribution.trajectories import Trajectory
from featdiff.report.data import ReportData
from featdiff.report.page import write_report
from featdiff.report.pictures import pictures

BETWEEN = torch.tensor([[0.8, 0.4], [0.4, 0.5]])


def panel(alignment: str = "matched", paradigm: str = "rl") -> DynamicsPanel:
    """Two checkpoints with floors 0.8 and 0.5; three features ranked at the first of the top 4, of which one leaves."""
    found = Trajectory(
        checkpoints=("rl-1", "rl-2"),
        alignment=alignment,  # pyright: ignore[reportArgumentType] - one of the four
        specificity=torch.rand(2, 9),
        ranked=torch.arange(8).view(2, 4),
        overlap=torch.tensor([[1.0, 0.6], [0.6, 1.0]]),
        chance=0.1,
        noise_floor=0.65,
        rank_shift=torch.tensor([[0.0, 1.0, torch.nan, torch.nan]]),
        counted=(3, 4),
        between_seeds=BETWEEN,
        seeds=2,
    )
    return DynamicsPanel.of(found, paradigm)


def page_of(data: ReportData, folder: Path) -> str:
    return write_report(data, folder).read_text(encoding="utf-8")


def test_a_panel_holds_what_was_ranked_and_no_more() -> None:
    assert panel().rank_shift == [[0.0, 1.0, None]] and panel().top == 4


def test_overlaps_are_divided_by_the_floor_of_both_checkpoints() -> None:
    one = panel()
    assert one.relative is not None and one.floors == pytest.approx([0.8, 0.5])
    assert one.relative[0][1] == pytest.approx(0.4 / (0.8 * 0.5) ** 0.5) and one.relative[0][0] == pytest.approx(1.0)
    by_index = panel("same_seed_index")
    assert by_index.ends_relative == pytest.approx(0.6 / (0.8 * 0.5) ** 0.5)


def test_every_overlap_stands_beside_its_floor_and_divided_by_it(study: ReportData) -> None:
    found = [
        picture for picture in pictures(replace(study, dynamics=[panel()])) if "overlap matched" in picture.section
    ]
    plain, divided = found
    (axes,) = plain.figure.axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "floor"]
    assert [text.get_text() for text in axes.texts] == ["1.00", "0.60", "0.60", "1.00", "0.80", "0.50"]
    assert "one checkpoint under two seeds shares 65.0 % with itself" in plain.finding
    assert "reach 0.63 of the agreement" in divided.finding and divided.numbers["relative"] == panel().relative


def test_a_floor_at_chance_takes_the_meaning_from_what_is_divided_by_it(study: ReportData) -> None:
    found = {
        floor: [
            p for p in pictures(replace(study, dynamics=[replace(panel(), noise_floor=floor)])) if "by-floor" in p.name
        ]
        for floor in (0.1, 0.11)
    }
    assert "these ratios mean nothing" in found[0.1][0].finding
    assert "no change that could be told from noise" in found[0.11][0].finding


def test_rank_shifts_say_how_many_features_are_known_well_enough_to_be_ranked(study: ReportData) -> None:
    (shifts,) = (p for p in pictures(replace(study, dynamics=[panel()])) if p.section == "rank_shift")
    assert "Ranked are 3 features" in shifts.finding and "1 of 3 leave the top 4" in shifts.finding


def test_a_panel_of_which_nothing_is_known_has_no_rank_shifts(study: ReportData, tmp_path: Path) -> None:
    data = replace(study, dynamics=[replace(panel(), rank_shift=[[]])])
    assert not [picture for picture in pictures(data) if picture.section == "rank_shift"]
    assert "there are no rank shifts to show" in page_of(data, tmp_path)


def test_the_page_says_of_each_alignment_what_it_can_and_cannot_show(study: ReportData, tmp_path: Path) -> None:
    data = replace(study, dynamics=[panel(alignment, who) for alignment in TITLES for who in ("sft", "rl")])
    page = page_of(data, tmp_path).split('id="dynamics"')[1]
    for alignment, title in TITLES.items():
        assert all(text.replace("'", "&#39;") in page for text in (title, READINGS[alignment]))
        row = re.search(rf'<th scope="row">{alignment}</th><td>rl</td>(.*?)</tr>', page)
        assert row and re.findall(r">([\d.]+)<", row[1])[:5] == ["2", "4", "60.0", "65.0", "10.0"]


def test_missing_alignments_are_named_with_their_reason(study: ReportData, tmp_path: Path) -> None:
    data = replace(study, missing_alignments={"rl": {"swap": "no crosscoder aligns <base> with rl alone"}})
    assert "swap is missing for rl: no crosscoder aligns &lt;base&gt; with rl alone." in page_of(data, tmp_path)
