"""Drift on the page: every model by its KL, and the control through every crosscoder."""

from dataclasses import replace
from pathlib import Path

from equal_drift_record import EQUAL

from featdiff.analyses.drift.pictures import drift_pictures
from featdiff.analyses.drift.result import DriftPanel, DriftRow
from featdiff.report.data import ReportData
from featdiff.report.page import write_report

MODELS = ("base", "sft", "rl")


def row(tuned: str, name: str, kind: str, alpha: float | None, kl: float, tail: int) -> DriftRow:
    weights = {"attention": 0.1, "all": 0.05}
    return DriftRow(
        tuned, name, kind, alpha, kl, kl / 2, weights, [0.01, 0.2], {"0.8": tail, "0.9": 1, "measured": 700}
    )


ROWS = [
    row("sft", "sft-1", "checkpoint", None, 0.3, 20),
    row("sft", "sft", "model", 1.0, 0.8, 90),
    row("sft", "sft x 0.5", "interpolation", 0.5, 0.4, 50),
    row("sft", "<sft> matched", "matched", 0.35, 0.25, 31),
    row("rl", "rl", "model", 1.0, 0.25, 12),
]
PANEL = DriftPanel("rl", ROWS, EQUAL)
CONTROL = replace(
    row("rft", "rft", "model", 1.0, 0.3, 0),
    tails=None,
    crossed={"sft": {"0.8": 4, "0.9": 0, "measured": 700}, "rl": {"0.8": 7, "0.9": 0, "measured": 690}},
)
CONTROLLED = DriftPanel("rl", [*ROWS, CONTROL], EQUAL, {"kept": 3605, "drawn": 5102, "prompts": 3840})


def test_without_pair_crosscoders_there_is_no_figure() -> None:
    bare = DriftPanel("rl", [replace(one, tails=None) for one in ROWS], EQUAL)
    assert list(drift_pictures(bare, MODELS)) == []


def test_the_figure_has_every_model_by_its_divergence() -> None:
    (picture,) = drift_pictures(PANEL, MODELS)
    (axes,) = picture.figure.axes
    lines = {str(line.get_label()): line.get_xydata().tolist() for line in axes.lines}  # pyright: ignore
    assert lines["sft, training"] == [[0.3, 20.0], [0.8, 90.0]]
    assert lines["sft, mixed with the base"] == [[0.25, 31.0], [0.4, 50.0], [0.8, 90.0]]
    assert "sft-1 20 at 0.3" in picture.finding and "rl 12 at 0.25" in picture.finding


def test_the_figure_has_a_panel_for_every_crosscoder_where_there_is_a_control() -> None:
    (picture,) = drift_pictures(CONTROLLED, MODELS)
    found = [{str(line.get_label()): line.get_xydata().tolist() for line in axes.lines} for axes in picture.figure.axes]  # pyright: ignore
    assert [one["rft, training"] for one in found] == [[[0.3, 4.0]], [[0.3, 7.0]]]
    assert found[0]["sft, training"] == [[0.3, 20.0], [0.8, 90.0]] and found[1]["rl, training"] == [[0.25, 12.0]]
    assert "sft, training" not in found[1] and "rl, training" not in found[0]
    assert "1 model on the way to rft, read in rl's place: rft 7 at 0.3" in picture.finding


def test_the_page_escapes_names_and_shows_every_row(study: ReportData, tmp_path: Path) -> None:
    page = write_report(replace(study, drift=PANEL), tmp_path).read_text()
    section = page[page.index('<section id="drift">') : page.index('<section id="dynamics">')]
    assert "&lt;sft&gt; matched" in section and "<sft>" not in section and section.count("of 700 measured") == 5 + 9 * 2
    assert "5.0<small>attention 10.0</small>" in section and ">20.0<" in section
    assert "Drift was not measured" in write_report(study, tmp_path).read_text()


def test_the_page_says_what_the_control_is_and_shows_it_in_every_place(study: ReportData, tmp_path: Path) -> None:
    page = write_report(replace(study, drift=CONTROLLED), tmp_path).read_text()
    section = page[page.index('<section id="drift">') : page.index('<section id="dynamics">')]
    assert "3,605 kept of 5,102 drawn for 3,840 prompts" in section
    assert "4<small>of 700 in sft's place</small>7<small>of 690 in rl's place</small>" in section
    for way in ("as trained", "mixed with the base", "nearest checkpoint"):
        assert section.count(f">{way}</th>") == 1
    assert "fewer specific features than training on the teacher" in section
    assert "is the base after SFT" not in write_report(replace(study, drift=PANEL), tmp_path).read_text()
