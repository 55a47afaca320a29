"""The causal part of the page: what it is given is what it says."""

from dataclasses import replace
from pathlib import Path

from featdiff.analyses.intervention.result import (
    CausalPanel,
    ClaimRow,
    DoseCurve,
    EvidenceRow,
    KindRow,
    SideEffectRow,
)
from featdiff.analyses.intervention.text import causal_pictures
from featdiff.report.data import ReportData
from featdiff.report.page import write_report

KINDS = {
    "activity-matched": KindRow(40, -0.1, [-0.2, 0.0], 0.024),
    "mean difference": KindRow(1, -0.4, [-0.4, -0.4], None),
}
CURVE = DoseCurve(
    "rl", "critical", 2, [0.0, 1.0], [-0.3, 0.0], [-0.1, 0.0], [-0.2, -0.05], [0.0, 0.05], {"a": [-0.3, 0.0]}
)
PANEL = CausalPanel(
    claims=[ClaimRow("rl", "zero", 3, 120, -0.31, [-0.4, -0.2], KINDS, 0.024, "supported")],
    evidence=[
        EvidenceRow(
            "rl",
            "zero",
            "dice & co",
            40,
            13,
            1,
            0.0018,
            0.18,
            0.024,
            0.072,
            KINDS,
            {"before": [9, 31], "after": [20, 20]},
            {"before": 0.75, "after": 0.5},
        ),
        EvidenceRow("rl", "zero", "few", 2, 0, 0, 1.0, None, 1.0, 1.0, {}, {}, {}),
    ],
    side_effects=[SideEffectRow("rl", "zero", 0.0312, 3.1, 3.2, 4096, [0.011, 0.012])],
    doses=[CURVE, replace(CURVE, measured_on="all", control=[], control_low=[], control_high=[])],
)


def page(study: ReportData, folder: Path, panel: CausalPanel) -> str:
    return write_report(replace(study, causal=panel), folder).read_text(encoding="utf-8")


def test_the_page_says_what_it_was_given_and_escapes_names(study: ReportData, tmp_path: Path) -> None:
    text = page(study, tmp_path, PANEL)
    for words in (
        "All tasks together", "−31.0", "n = 120, 3 tasks", "Side effects", "0.031", "3.100 → 3.200", "0.011, 0.012",
        "dice &amp; co", "13, 1", "18.0", "75.0 → 50.0", "9 31", "→ 20 20",
    ):  # fmt: skip
        assert words in text, words


def test_a_study_without_causal_evidence_has_no_such_sections(study: ReportData, tmp_path: Path) -> None:
    text = page(study, tmp_path, CausalPanel())
    assert not any(words in text for words in ("All tasks together", "Side effects", "Doses"))


def test_a_dose_curve_comes_with_its_numbers_and_says_them() -> None:
    first, second = causal_pictures(PANEL)
    assert "−30.0 at 0 and 0.0 at 1" in first.finding and "features matched by activity −10.0 and 0.0" in first.finding
    assert "matched" not in second.finding and "all items" in second.title
    assert first.numbers["selected"] == [-0.3, 0.0] and first.name != second.name
