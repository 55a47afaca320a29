"""Editing methods on the page: sentences by fixed rules, one table for each measure, names escaped."""

from dataclasses import replace
from pathlib import Path

from featdiff.analyses.editing_methods.figures import overlap_pictures
from featdiff.analyses.editing_methods.result import (
    Chance,
    Change,
    Changes,
    ChoosingItems,
    Comparison,
    Difference,
    EditingMethods,
    Method,
    NeuronOverlap,
    TextEffect,
)
from featdiff.analyses.editing_methods.text import section_of, verdicts
from featdiff.intervention.effect_records import BeforeAfter, ControlRecord, FlipsRecord
from featdiff.report.data import ReportData
from featdiff.report.page import write_report
from featdiff.stats import Verdict

NOT_BEYOND: Verdict = "not distinguishable from random features"


def change(value: float, control: float | None, verdict: Verdict = NOT_BEYOND, n: int = 90) -> Change:
    interval = value - 0.1, value + 0.1
    if control is None:
        return Change(n, value, interval, None)
    controls = ControlRecord(40, control, [0.0, 0.2])
    beyond = Difference(value - control, (0.1, 0.3))
    compared = Comparison(FlipsRecord(0, 9, 0.01), {"activity-matched": controls}, 0.01, verdict, beyond)
    return Change(n, value, interval, compared)


def method(name: str, value: float, control: float | None, verdict: Verdict, kl: float) -> Method:
    edit = control is not None
    changes = Changes(change(value, control, verdict), change(-0.2, control), change(0.05, None), 0.25)
    return Method(
        name=name,
        title=f"<{name}>",
        edit=edit,
        control="activity-matched" if edit else None,
        tried=((0.5, 0.01, 0.0), (1.0, 0.02, 0.005)) if edit else (),
        reliability=changes,
        generalization=None,
        side_effects=TextEffect(kl, BeforeAfter(3.0, 3.1), 512, (0.1,) if edit else ()),
        answer_format=BeforeAfter(0.9, 0.8),
    )


METHODS = (
    method("features", 0.4, 0.1, "supported", 0.2),
    method("steering", 0.3, 0.25, NOT_BEYOND, 0.1),
    method("neurons", 0.2, 0.1, "underpowered", 0.3),
    method("sft", 0.3, None, NOT_BEYOND, 0.4),
    method("rl", 1.0, None, NOT_BEYOND, 0.25),
)
NAMES = tuple(one.name for one in METHODS)
TABLE = tuple(tuple(1.0 if a == b else 0.1 + abs(a - b) / 10 for b in range(5)) for a in range(5))
RANDOM = ((0.2,), (0.2,), (0.3,), (), ())
OVERLAP = NeuronOverlap("above the tap", NAMES, 640, 32, TABLE, TABLE, Chance(0.03, 0.08), (0.9,) * 5, "rl", RANDOM)
FOUND = EditingMethods("rl", (3, 17), ChoosingItems(("a", "b"), 320, 150), METHODS, (OVERLAP,))


def test_sentences_name_who_beats_random_edits_and_who_does_not() -> None:
    reliable, unseen, raised, cost, neurons = verdicts(FOUND)
    assert "(n = 90), features (+40.0 points against +10.0) raises the base beyond random edits as large" in reliable
    assert "not so steering (not beyond them) and neurons (too few to tell)" in reliable
    assert unseen == "On critical items of unseen tasks nothing was measured: there are none."
    assert "features +5.0 and –" in raised
    assert "steering 0.100, features 0.200, neurons 0.300 and sft 0.400; rl itself 0.250" in cost
    assert "features and steering 0.20; neurons and sft 0.20; across the two classes 0.30 on average" in neurons


def test_where_no_edit_beats_its_controls_it_says_so() -> None:
    weak = tuple(method(name, 0.1, 0.1, NOT_BEYOND, 0.1) for name in NAMES[:3])
    assert "no edit goes beyond random edits as large" in verdicts(replace(FOUND, methods=weak))[0]


def test_neurons_shared_with_the_target_are_compared_with_those_of_random_edits() -> None:
    assert FOUND.shared("features") == (0.5, 0.2) and FOUND.shared("sft") == (0.2, None)
    assert replace(FOUND, overlaps=()).shared("features") == (None, None)


def test_an_overlap_with_a_method_that_is_not_there_is_not_known() -> None:
    assert OVERLAP.pair("features", "steering") == 0.2
    assert OVERLAP.pair("features", "dpo") is None


def test_the_summary_calls_random_edits_controls_and_leaves_out_what_is_not_known() -> None:
    summary = METHODS[1].reliability.critical.summary()
    assert summary["verdict"] == "not distinguishable from its controls" and "beyond" in summary
    assert change(0.1, None).summary() == {"n": 90, "change": 0.1, "interval": (0.0, 0.2)}


def test_the_figure_has_every_method_and_two_further_columns() -> None:
    (picture,) = overlap_pictures([OVERLAP])
    labels = [text.get_text() for text in picture.figure.axes[0].get_xticklabels()]
    assert labels == [*NAMES, "two halves", "controls"]
    assert picture.numbers["jaccard"] == TABLE and "features and steering 0.20" in picture.finding


def test_the_page_escapes_titles_and_shows_every_row(study: ReportData, tmp_path: Path) -> None:
    page = write_report(study, tmp_path, [section_of(FOUND)]).read_text()
    assert page.count("&lt;steering&gt;") == 3 and "<steering>" not in page
    assert "beyond +30.0" in page and "320 items" in page and "0.5: +1.0 (random 0.0)" in page
    nothing = replace(FOUND, methods=(), overlaps=(), note="no features")
    assert "were not compared: no features" in write_report(study, tmp_path, [section_of(nothing)]).read_text()
