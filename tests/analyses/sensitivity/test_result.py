"""Sensitivity on the page: verdicts by quantity, both readings, and nothing that was not measured."""

from dataclasses import replace
from pathlib import Path

from featdiff.analyses.sensitivity.pictures import sensitivity_pictures
from featdiff.analyses.sensitivity.result import (
    ChoiceCell,
    ChoiceRow,
    EffectCell,
    PointRow,
    QuantityRow,
    SensitivityPanel,
    overall,
)
from featdiff.analyses.sensitivity.text import sensitivity_sentences
from featdiff.report.data import ReportData
from featdiff.report.page import write_report

TAIL, ALIKE, EFFECT = "tail rl 0.8", "jaccard", "effect rl held_out"


def row(label: str, kind: str, l0: dict[str, ChoiceCell], fit: dict[str, ChoiceCell] | None = None) -> ChoiceRow:
    return ChoiceRow(label, kind, {"l0": l0, "variance_explained": l0 if fit is None else fit})


def cells(tail: float | None, alike: float, effect: float, verdict: str | None) -> dict[str, ChoiceCell]:
    return {
        TAIL: ChoiceCell(tail, 0.01, 0.09, verdict=verdict),
        ALIKE: ChoiceCell(alike, chance=0.02, chance_high=0.06, verdict=verdict),
        EFFECT: ChoiceCell(effect, effect - 0.1, effect + 0.1, verdict=verdict),
    }


def point(choice: str, kind: str, strength: float, tail: int) -> PointRow:
    effect = EffectCell(120, -0.2, [-0.3, -0.1], -0.05, 20, 0.05, "supported")
    fit = {"base": 0.9, "rl": 0.8}
    tails = {"base": {"0.8": 1, "0.9": 0}, "rl": {"0.8": tail, "0.9": 1}}
    return PointRow(choice, kind, strength, 40 / strength, fit, 0.1, 200, tails, 5, 0.6, {"rl": effect})


PANEL = SensitivityPanel(
    quantities=[
        QuantityRow(TAIL, "rl above 0.8", "share"),
        QuantityRow(ALIKE, "final features, Jaccard", "similarity"),
        QuantityRow(EFFECT, "rl, zero: held-out critical items", "effect"),
    ],
    choices=[
        row("reference", "reference", cells(0.05, 1.0, -0.15, None)),
        row("seed 1", "seed", cells(0.06, 0.5, -0.12, None)),
        row("<cosine>", "objective", cells(0.05, 0.55, -0.14, "robust"), cells(0.3, 0.55, -0.14, "not robust")),
        row("layer 3", "layer", cells(0.07, 0.4, -0.11, "undecided"), cells(None, 0.4, -0.1, "not measured")),
        row("L2 norm", "score", {TAIL: ChoiceCell(0.05, 0.02, 0.08, verdict="robust")}),
    ],
    points=[
        point(choice, kind, strength, tail)
        for choice, kind in (("reference", "reference"), ("seed 1", "seed"), ("<cosine>", "objective"))
        for strength, tail in ((0.5, 12), (1.0, 8))
    ],
    at={"l0": 40.0, "variance_explained": 0.15},
    strengths=[0.5, 1.0],
    rbo_p=0.9,
    acceptance=0.7,
)


def test_a_choice_is_robust_only_if_both_readings_say_so() -> None:
    _, _, cosine, layer, norm = PANEL.choices
    assert overall(cosine, TAIL) == "not robust" and overall(layer, TAIL) == "undecided"
    assert overall(norm, TAIL) == "robust" and overall(norm, ALIKE) is None


def test_a_sentence_names_what_is_not_robust_with_its_number_and_what_seeds_do() -> None:
    tail, alike, effect = sensitivity_sentences(PANEL)
    assert tail == (
        "rl above 0.8 (5.0 %, seeds 6.0 to 6.0 %): robust to 1 of 3 choices; not robust to <cosine> (30.0 % at equal "
        "variance explained); undecided: layer 3."
    )
    assert "seeds 0.50 to 0.50): robust to 0 of 2 choices; not robust to <cosine> (0.55 at" in alike
    assert effect.startswith("rl, zero: held-out critical items (−15.0 points, seeds −12.0 to −12.0 points): ")


def test_without_seeds_there_is_no_yardstick() -> None:
    blind = {TAIL: ChoiceCell(0.05, verdict="no yardstick")}
    panel = replace(PANEL, quantities=PANEL.quantities[:1], choices=[row("layer 3", "layer", blind)])
    assert sensitivity_sentences(panel) == ["rl above 0.8: fewer than two seeds have it, so no choice can be judged."]


def test_seeds_that_agree_by_chance_are_said_to() -> None:
    blind = {ALIKE: ChoiceCell(0.0, chance=0.01, chance_high=0.05, verdict="no yardstick")}
    seeds = [row(f"seed {seed}", "seed", {ALIKE: ChoiceCell(0.02)}) for seed in (1, 2)]
    choices = [*seeds, row("layer 3", "layer", blind)]
    (said,) = sensitivity_sentences(replace(PANEL, quantities=PANEL.quantities[1:2], choices=choices))
    assert said.endswith(
        "further seeds are no more like the study's own than chance is, so it is a result of the seed."
    )


def test_curves_show_every_crosscoder_and_choices_both_readings() -> None:
    curve, *choices = list(sensitivity_pictures(PANEL))
    lines = {str(line.get_label()): line.get_xydata().tolist() for line in curve.figure.axes[0].lines}  # pyright: ignore
    assert lines["reference"] == lines["<cosine>"] == [[80.0, 6.0], [40.0, 4.0]]
    assert "<cosine> 8 of 200 at L0 40" in curve.finding
    assert [picture.title for picture in choices] == ["final features, Jaccard", "rl, zero: held-out critical items"]
    labels = [label.get_text() for label in choices[1].figure.axes[0].get_yticklabels()]
    assert labels == ["reference", "seed 1", "<cosine>", "layer 3"]  # a norm touches no effect


def test_the_page_has_both_tables_and_escapes_names(study: ReportData, tmp_path: Path) -> None:
    page = write_report(replace(study, sensitivity=PANEL), tmp_path).read_text()
    section = page[page.index('<section id="sensitivity">') : page.index('<section id="limits">')]
    assert "At equal L0" in section and "At equal variance explained" in section and "<cosine>" not in section
    assert "not robust to &lt;cosine&gt; (30.0 %" in section
    assert '<th scope="row">&lt;cosine&gt;</th><td class="verdict-not-robust">not robust</td>' in section
    assert section.count("<small>not touched") == 4 and "chance 0.02, 0.06" in section
    assert "Every crosscoder of the analysis (6)" in section
    assert 'id="sensitivity"' not in write_report(study, tmp_path).read_text()
