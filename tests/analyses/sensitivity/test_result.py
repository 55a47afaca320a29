"""Sensitivity compared and on the page: verdicts by quantity, both readings, and nothing that was not measured."""

from dataclasses import replace
from pathlib import Path

import pytest

from featdiff.analyses.sensitivity.report import section_of, sensitivity_pictures, sentences
from featdiff.analyses.sensitivity.result import (
    Cell,
    ChoiceResult,
    CrosscoderResult,
    EditEffects,
    Quantity,
    Sensitivity,
    Tails,
    compared,
)
from featdiff.attribution.robustness import Robustness
from featdiff.config.crosscoder import ReLU
from featdiff.intervention.effect_records import ControlRecord, FlipsRecord, PooledRecord
from featdiff.report.data import ReportData
from featdiff.report.page import write_report

TAIL, ALIKE, EFFECT = "tail rl 0.8", "jaccard", "effect rl held_out"


def row(label: str, kind: str, l0: dict[str, Cell], fit: dict[str, Cell] | None = None) -> ChoiceResult:
    return ChoiceResult(label, kind, l0, l0 if fit is None else fit)


def cells(tail: float | None, alike: float, effect: float, verdict: Robustness | None) -> dict[str, Cell]:
    return {
        TAIL: Cell(tail, 0.01, 0.09, verdict=verdict),
        ALIKE: Cell(alike, chance=0.02, chance_high=0.06, verdict=verdict),
        EFFECT: Cell(effect, effect - 0.1, effect + 0.1, verdict=verdict),
    }


def point(choice: str, kind: str, strength: float, tail: int) -> CrosscoderResult:
    control = ControlRecord(20, -0.05, [-0.1, 0.0])
    effect = PooledRecord(
        120, -0.2, [-0.3, -0.1], FlipsRecord(24, 0, 0.01), {"activity-matched": control}, 0.05, "supported"
    )
    return CrosscoderResult(
        choice=choice,
        kind=kind,
        strength=strength,
        layer=None,
        sparsity=ReLU(2.0 * strength),
        variance_explained={"base": 0.9, "rl": 0.8},
        l0=40 / strength,
        dead_share=0.1,
        tokens=1000,
        ce_recovered=None,
        tails={
            "base": Tails(200, {"0.8": 1, "0.9": 0}, {"0.8": 0, "0.9": 0}),
            "rl": Tails(200, {"0.8": tail, "0.9": 1}, {"0.8": tail // 2, "0.9": 0}),
        },
        selection=None,
        effects={"rl": EditEffects(effect, effect)},
    )


FOUND = Sensitivity(
    coverage=0.95,
    quantities=(
        Quantity(TAIL, "rl above 0.8", "share"),
        Quantity(ALIKE, "final features, Jaccard", "similarity"),
        Quantity(EFFECT, "rl, zero: held-out critical items", "effect"),
    ),
    choices=(
        row("reference", "reference", cells(0.05, 1.0, -0.15, None)),
        row("seed 1", "seed", cells(0.06, 0.5, -0.12, None)),
        row("<cosine>", "objective", cells(0.05, 0.55, -0.14, "robust"), cells(0.3, 0.55, -0.14, "not robust")),
        row("layer 3", "layer", cells(0.07, 0.4, -0.11, "undecided"), cells(None, 0.4, -0.1, "not measured")),
        row("L2 norm", "score", {TAIL: Cell(0.05, 0.02, 0.08, verdict="robust")}),
    ),
    points=tuple(
        point(choice, kind, strength, tail)
        for choice, kind in (("reference", "reference"), ("seed 1", "seed"), ("<cosine>", "objective"))
        for strength, tail in ((0.5, 12), (1.0, 8))
    ),
    at={"l0": 40.0, "variance_explained": 0.15},
    strengths=(0.5, 1.0),
    rbo_p=0.9,
    acceptance=0.7,
)


def test_a_curve_is_read_at_the_l0_of_the_study_and_judged_by_seeds() -> None:
    """By hand: at L0 40, of 200 alive, the seeds have 8 and 12, and the choice, halfway in log L0, (8 + 12) / 2."""
    curves = [("reference", "reference", 10), ("seed 1", "seed", 8), ("seed 2", "seed", 12)]
    points = [point(label, kind, 1.0, tail) for label, kind, tail in curves]
    points += [replace(point("k", "sparsity", 1.0, tail), l0=l0) for l0, tail in ((80.0, 8), (20.0, 12))]
    rescored = {"L2 norm": {"rl": Tails(200, {"0.8": 30}, {"0.8": 3})}}
    found = compared(points, rescored, [Quantity(TAIL, "", "share")], {"l0": 40.0, "variance_explained": 0.15}, 0.95)
    assert [one.label for one in found] == ["reference", "seed 1", "seed 2", "k", "L2 norm"]
    assert [one.l0[TAIL].value for one in found] == pytest.approx([0.05, 0.04, 0.06, 0.05, 0.15])
    assert [one.verdict(TAIL) for one in found] == [None, None, None, "robust", "not robust"]


def test_a_choice_is_robust_only_if_both_readings_say_so() -> None:
    _, _, cosine, layer, norm = FOUND.choices
    assert cosine.verdict(TAIL) == "not robust" and layer.verdict(TAIL) == "undecided"
    assert norm.verdict(TAIL) == "robust" and norm.verdict(ALIKE) is None


def test_a_sentence_names_what_is_not_robust_with_its_number_and_what_seeds_do() -> None:
    tail, alike, effect = sentences(FOUND)
    assert tail == (
        "rl above 0.8 (5.0 %, seeds 6.0 to 6.0 %): robust to 1 of 3 choices; not robust to <cosine> (30.0 % at equal "
        "variance explained); undecided: layer 3."
    )
    assert "seeds 0.50 to 0.50): robust to 0 of 2 choices; not robust to <cosine> (0.55 at" in alike
    assert effect.startswith("rl, zero: held-out critical items (−15.0 points, seeds −12.0 to −12.0 points): ")


def test_without_seeds_there_is_no_yardstick() -> None:
    blind = {TAIL: Cell(0.05, verdict="no yardstick")}
    panel = replace(FOUND, quantities=FOUND.quantities[:1], choices=(row("layer 3", "layer", blind),))
    assert sentences(panel) == ["rl above 0.8: fewer than two seeds have it, so no choice can be judged."]


def test_seeds_that_agree_by_chance_are_said_to() -> None:
    blind = {ALIKE: Cell(0.0, chance=0.01, chance_high=0.05, verdict="no yardstick")}
    seeds = [row(f"seed {seed}", "seed", {ALIKE: Cell(0.02)}) for seed in (1, 2)]
    choices = (*seeds, row("layer 3", "layer", blind))
    (said,) = sentences(replace(FOUND, quantities=FOUND.quantities[1:2], choices=choices))
    assert said.endswith(
        "further seeds are no more like the study's own than chance is, so it is a result of the seed."
    )


def test_curves_show_every_crosscoder_and_choices_both_readings() -> None:
    curve, *choices = list(sensitivity_pictures(FOUND))
    lines = {str(line.get_label()): line.get_xydata().tolist() for line in curve.figure.axes[0].lines}  # pyright: ignore
    assert lines["reference"] == lines["<cosine>"] == [[80.0, 6.0], [40.0, 4.0]]
    assert "<cosine> 8 of 200 at L0 40" in curve.finding
    assert [picture.title for picture in choices] == ["final features, Jaccard", "rl, zero: held-out critical items"]
    labels = [label.get_text() for label in choices[1].figure.axes[0].get_yticklabels()]
    assert labels == ["reference", "seed 1", "<cosine>", "layer 3"]  # a norm touches no effect


def test_the_page_has_both_tables_and_escapes_names(study: ReportData, tmp_path: Path) -> None:
    page = write_report(study, tmp_path, [section_of(FOUND)]).read_text()
    section = page[page.index('<section id="sensitivity">') : page.index('<section id="limits">')]
    assert "At equal L0" in section and "At equal variance explained" in section and "<cosine>" not in section
    assert "not robust to &lt;cosine&gt; (30.0 %" in section
    assert '<th scope="row">&lt;cosine&gt;</th><td class="verdict-not-robust">not robust</td>' in section
    assert section.count("<small>not touched") == 4 and "chance 0.02, 0.06" in section
    assert "Every crosscoder of the analysis (6)" in section
    assert 'id="sensitivity"' not in write_report(study, tmp_path).read_text()
