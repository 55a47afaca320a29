"""Drift on the page: the verdict compares tails at equal KL, and says that there is one model each."""

from dataclasses import replace
from pathlib import Path

from featdiff.report import ReportData, write_report
from featdiff.report.drift import DriftPanel, DriftRow, drift_verdicts
from featdiff.report.drift_pictures import drift_pictures

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
PANEL = DriftPanel("rl", ROWS)


def test_the_verdict_compares_the_matched_interpolation_with_the_model_that_moved_least() -> None:
    (verdict,) = drift_verdicts(PANEL)
    assert "KL 0.25 nats" in verdict and "sft scaled to 0.35 of its change still has more features above 0.8" in verdict
    assert "31 of 700 (90 at its own KL of 0.8) against 12 of 700" in verdict
    assert "sft-1 (0.3), has 20" in verdict and "(n = 1)" in verdict
    fewer = [replace(one, tails={"0.8": 12, "measured": 700}) if one.kind == "matched" else one for one in ROWS]
    assert "has no more features above 0.8 than rl" in drift_verdicts(DriftPanel("rl", fewer))[0]


def test_without_pair_crosscoders_it_says_that_nothing_is_known() -> None:
    bare = DriftPanel("rl", [replace(one, tails=None) for one in ROWS])
    assert "are not known" in drift_verdicts(bare)[0]
    assert list(drift_pictures(bare, MODELS)) == []


def test_the_figure_has_every_model_by_its_divergence() -> None:
    (picture,) = drift_pictures(PANEL, MODELS)
    (axes,) = picture.figure.axes
    lines = {str(line.get_label()): line.get_xydata().tolist() for line in axes.lines}  # pyright: ignore
    assert lines["sft, training"] == [[0.3, 20.0], [0.8, 90.0]]
    assert lines["sft, mixed with the base"] == [[0.25, 31.0], [0.4, 50.0], [0.8, 90.0]]
    assert "sft-1 20 at 0.3" in picture.finding and "rl 12 at 0.25" in picture.finding


def test_the_page_escapes_names_and_shows_every_row(study: ReportData, tmp_path: Path) -> None:
    page = write_report(replace(study, drift=PANEL), tmp_path).read_text()
    section = page[page.index('<section id="drift">') : page.index('<section id="dynamics">')]
    assert "&lt;sft&gt; matched" in section and "<sft>" not in section and section.count("of 700 measured") == 5
    assert "5.0<small>attention 10.0</small>" in section and ">20.0<" in section
    assert "Drift was not measured" in write_report(study, tmp_path).read_text()
