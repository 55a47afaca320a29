"""Four ways on the page: sentences by fixed rules, one table for each measure, names escaped."""

from dataclasses import replace
from pathlib import Path

from featdiff.analyses.editing_methods.figures import ways_pictures
from featdiff.analyses.editing_methods.result import WayOverlap, WayRow, WaySet, WaysPanel
from featdiff.analyses.editing_methods.text import pair_overlap, ways_verdicts
from featdiff.report.data import ReportData
from featdiff.report.page import write_report

BEATEN = "not distinguishable from its controls"


def one_set(change: float, control: float | None, verdict: str = "", n: int = 90) -> WaySet:
    interval = [change - 0.1, change + 0.1]
    if control is None:
        return WaySet(n, change, interval)
    return WaySet(n, change, interval, 40, control, [0.0, 0.2], change - control, [0.1, 0.3], 0.01, verdict)


def row(name: str, change: float, control: float | None, verdict: str, kl: float) -> WayRow:
    sets = {"critical": one_set(change, control, verdict), "mirror": one_set(-0.2, control), "all": one_set(0.05, None)}
    return WayRow(
        name=name,
        title=f"<{name}>",
        edit=control is not None,
        reference=name == "rl",
        control="",
        tried=[[0.5, 0.01, 0.0], [1.0, 0.02, 0.005]] if control is not None else [],
        reliability=sets,
        generalization={},
        kl=kl,
        control_kl=[0.1] if control is not None else [],
        cross_entropy=(3.0, 3.1),
        tokens=512,
        in_form=(0.9, 0.8),
        histogram_shift=0.25,
    )


ROWS = [
    row("features", 0.4, 0.1, "supported", 0.2),
    row("steering", 0.3, 0.25, BEATEN, 0.1),
    row("neurons", 0.2, 0.1, "underpowered", 0.3),
    row("sft", 0.3, None, "", 0.4),
    row("rl", 1.0, None, "", 0.25),
]
NAMES = [one.name for one in ROWS]
TABLE = [[1.0 if a == b else 0.1 + abs(a - b) / 10 for b in range(5)] for a in range(5)]
OVERLAP = WayOverlap(
    "above the tap", NAMES, 640, 32, TABLE, TABLE, 0.03, 0.08, [0.9] * 5, "rl", [[0.2], [0.2], [0.3], [], []]
)
PANEL = WaysPanel("rl", ROWS, [OVERLAP], 320, 150)


def test_sentences_name_who_beats_random_edits_and_who_does_not() -> None:
    reliable, unseen, raised, cost, neurons = ways_verdicts(PANEL)
    assert "(n = 90), features (+40.0 points against +10.0) raises the base beyond random edits as large" in reliable
    assert "not so steering (not beyond them) and neurons (too few to tell)" in reliable
    assert unseen == "On critical items of unseen tasks nothing was measured: there are none."
    assert "features +5.0 and –" in raised
    assert "steering 0.100, features 0.200, neurons 0.300 and sft 0.400; rl itself 0.250" in cost
    assert "features and steering 0.20; neurons and sft 0.20; across the two classes 0.30 on average" in neurons


def test_where_no_edit_beats_its_controls_it_says_so() -> None:
    none = [replace(one, reliability={"critical": one_set(0.1, 0.1, BEATEN)}) for one in ROWS[:3]]
    assert "no edit goes beyond random edits as large" in ways_verdicts(replace(PANEL, rows=none))[0]


def test_the_neurons_shared_with_the_target_stand_beside_those_of_random_edits() -> None:
    assert PANEL.shared("features") == (0.5, 0.2) and PANEL.shared("sft") == (0.2, None)
    assert replace(PANEL, overlaps=[]).shared("features") == (None, None)


def test_an_overlap_with_a_way_that_is_not_there_is_not_known() -> None:
    assert pair_overlap(OVERLAP, "features", "steering") == 0.2
    assert pair_overlap(OVERLAP, "features", "dpo") is None


def test_the_figure_has_every_way_and_what_stands_beside_it() -> None:
    (picture,) = ways_pictures(PANEL)
    labels = [text.get_text() for text in picture.figure.axes[0].get_xticklabels()]
    assert labels == [*NAMES, "two halves", "controls"]
    assert picture.numbers["jaccard"] == TABLE and "features and steering 0.20" in picture.finding
    assert list(ways_pictures(None)) == []


def test_the_page_escapes_titles_and_shows_every_row(study: ReportData, tmp_path: Path) -> None:
    page = write_report(replace(study, ways=PANEL), tmp_path).read_text()
    section = page[page.index('<section id="ways">') : page.index('<section id="features">')]
    assert section.count("&lt;steering&gt;") == 3 and "<steering>" not in section
    assert "beyond +30.0" in section and "320 items" in section and "0.5: +1.0 (random 0.0)" in section
    assert "were not compared" in write_report(study, tmp_path).read_text()
