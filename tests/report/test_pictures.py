"""Which figures a study gets, and that each says its finding and carries its numbers."""

import json
from dataclasses import replace

from featdiff.report.data import ReportData
from featdiff.report.pictures import pictures


def test_a_whole_study_has_every_figure_of_the_paper(study: ReportData) -> None:
    sections = [picture.section for picture in pictures(study)]

    assert sections == [
        *["overlap joint", "rank_shift"] * 2,
        *["effects"] * 2,
    ]


def test_a_study_without_results_has_no_figures(study: ReportData) -> None:
    bare = replace(study, dynamics=[], effects=[])

    assert pictures(bare) == []


def test_every_finding_holds_numbers_and_every_figure_its_data(study: ReportData) -> None:
    for picture in pictures(study):
        assert any(character.isdigit() for character in picture.finding), picture.name
        assert json.loads(json.dumps(picture.numbers, allow_nan=False)) == json.loads(json.dumps(picture.numbers))
        assert picture.numbers


def test_the_text_alternative_of_an_effect_names_change_and_control(study: ReportData) -> None:
    effect = study.effects[0]
    picture = next(picture for picture in pictures(study) if picture.section == "effects")
    change, control = effect.sets["held_out"].change, effect.control.mean

    assert change and control
    assert picture.finding.startswith("5 features set to 0 in rl, held-out items:")
    assert f"{effect.task} −{100 * abs(change):.1f} points against −{100 * abs(control):.1f}" in picture.finding


def test_the_text_alternative_of_rank_shifts_counts_blanks(study: ReportData) -> None:
    panel = replace(
        study.dynamics[0], checkpoints=["a", "b"], overlap=[[1, 0.5], [0.5, 1]], rank_shift=[[1, None, -3, None]]
    )
    shifts = next(p for p in pictures(replace(study, dynamics=[panel])) if p.section == "rank_shift")

    assert "sft, joint: 2 of 4 leave the top 50" in shifts.finding
    assert shifts.numbers["rank_shift"] == [[1, None, -3, None]]
