"""The selection on the page: its numbers, what else would be selected, and other seeds."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from featdiff.analyses.selection.compute import stability_of_features
from featdiff.analyses.selection.result import ScoreSelection, SelectionResult, SharedFeatures, TasksSelection
from featdiff.analyses.selection.text import caveats, overlap_picture, section_of
from featdiff.analyses.stability.result import FeatureStability, ScoreOverSeeds
from featdiff.files import load, save
from featdiff.report.data import ReportData
from featdiff.report.page import write_report
from featdiff.selection.agreement import SelectedElsewhere, WithoutTask
from featdiff.selection.overlap import Null, OverlapNull

PER_TASK = {"reversal": 40, "<counting>": 33}
SHARED = TasksSelection(
    PER_TASK, (3, 17, 40), "intersection", tuple(PER_TASK), ((1, 0.62), (0.62, 1)), ((1, 1), (1, 1)), (70, 3)
)
FOUND = SelectionResult(
    **vars(SHARED),
    without_held_out=SHARED,
    by_rule={
        "rel_max": SharedFeatures(PER_TASK, (3, 17, 40), "intersection"),
        "t_bh": SharedFeatures(PER_TASK, tuple(range(9)), "intersection"),
    },
    score="swap",
    lineup="joint",
    model="rl",
    threshold=0.2,
    critical={"reversal": 370, "<counting>": 57},
    mirror={"reversal": 20, "<counting>": 40},
    by={"swap": ScoreSelection(**vars(SHARED), without_held_out=SHARED, by_rule={})},
    null=OverlapNull([], [], [Null(70.0, 80.25, 88.0, 0.01), Null(3.0, 1.5, 2.0, 0.02)]),
    null_draws=1000,
    without_task={"reversal": WithoutTask([3], "intersection", 0.6)},
    elsewhere={"both right": SelectedElsewhere(210, list(range(60)), "intersection", Null(0.8, 0.3, 0.4, 0.001))},
)
OVER_SEEDS = FeatureStability(2, 2, (2, 1, 0), ScoreOverSeeds("rl", (0.71, 0.6, None), (0.02, None, None)))


def page(study: ReportData, folder: Path, found: SelectionResult) -> str:
    text = write_report(study, folder, [section_of(found)]).read_text()
    return text[text.index('<section id="selection">') :]


def test_a_result_comes_back_from_its_file(tmp_path: Path) -> None:
    found = replace(FOUND, stability=OVER_SEEDS)
    save(found, tmp_path / "selection.json")
    assert load(SelectionResult, tmp_path / "selection.json") == found


def test_the_page_has_the_numbers_and_escapes_names(study: ReportData, tmp_path: Path) -> None:
    text = page(study, tmp_path, FOUND)
    for words in ("3 features", "&lt;counting&gt;", ">370<", ">40<", "80.2", "both right", "reversal 60.0 %", "t_bh 9"):
        assert words in text, words
    assert "<counting>" not in text.replace("\\u003c", "") and "The final set under other seeds" not in text
    assert "427 critical items" in text and "holds 60 items" in text


def test_an_empty_set_is_a_result(study: ReportData, tmp_path: Path) -> None:
    assert "holds 0 features: an empty set is a result" in page(study, tmp_path, replace(FOUND, chosen=()))


def test_the_final_set_says_how_many_of_it_are_stable(study: ReportData, tmp_path: Path) -> None:
    text = page(study, tmp_path, replace(FOUND, stability=OVER_SEEDS))
    assert "1 of the 3 selected features is stable" in text
    assert "0.71 ± 0.02</td>" in text and "1 of 2</td>" in text
    few = page(study, tmp_path / "few", replace(FOUND, stability=replace(OVER_SEEDS, other_seeds=1)))
    assert "With 1 other seed no feature can be called stable; that takes 2." in few


def test_without_critical_items_there_is_nothing_to_warn_of() -> None:
    assert len(caveats(FOUND)) == 1 and caveats(replace(FOUND, critical={"reversal": 0})) == []


def test_the_figure_carries_the_overlaps() -> None:
    picture = overlap_picture(FOUND)
    assert picture.numbers["overlap"] == FOUND.overlap and "40 in reversal and 33 in <counting>" in picture.finding


def test_stability_of_the_chosen_is_read_off_the_matches_of_all(tmp_path: Path) -> None:
    tensors = {
        "matched_in": torch.tensor([2, 0, 1]),
        "cosine": torch.zeros(2, 3),
        "mas": torch.tensor([[[0.2, 0.8]] * 3, [[0.5, 0.6]] * 3, [[0.5, float("nan")]] * 3]),
    }
    save_file(tensors, tmp_path / "joint.safetensors")
    found = stability_of_features(tmp_path / "joint.safetensors", [2, 0], ["base", "rl"], "rl")
    assert (found.other_seeds, found.matched_in) == (2, (1, 2))
    assert found.score.mean == pytest.approx((0.7, 0.7))
