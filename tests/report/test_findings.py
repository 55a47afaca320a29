"""Sentences follow from the numbers by fixed rules; each rule is tried on both sides."""

from dataclasses import replace

from featdiff.report.data import AccuracyCell, ReportData
from featdiff.report.findings import caveats, gains, headline, losses


def cell(low: float, high: float, gain_interval: list[float] | None = None) -> AccuracyCell:
    return AccuracyCell((low + high) / 2, 100, [low, high], 0.25, "far", gain_interval)


def test_a_gain_needs_a_paired_interval_above_zero() -> None:
    base = cell(0.2, 0.4)

    assert gains(cell(0.3, 0.5, [0.01, 0.19]), base)
    assert not gains(cell(0.3, 0.5, [-0.01, 0.21]), base)
    assert losses(cell(0.1, 0.3, [-0.19, -0.01]), base)
    assert not losses(cell(0.1, 0.3, [-0.19, 0.0]), base)


def test_without_a_paired_interval_touching_intervals_are_no_gain() -> None:
    base = cell(0.2, 0.4)

    assert gains(cell(0.41, 0.5), base)
    assert not gains(cell(0.39, 0.5), base)
    assert losses(cell(0.1, 0.19), base)
    assert not losses(cell(0.1, 0.21), base)


def test_the_headline_counts_gains_on_untrained_tasks_only(study: ReportData) -> None:
    lost, won, base = cell(0.0, 0.1), cell(0.8, 0.9), cell(0.3, 0.4)
    accuracy = {
        "caesar": {name: replace(found, role="train") for name, found in (("base", base), ("sft", won), ("rl", won))},
        "counting": {"base": base, "sft": lost, "rl": won},
        "dice": {"base": base, "sft": base, "rl": won},
    }

    sentence = headline(replace(study, accuracy=accuracy))[0]

    assert "sft beats base on 0 of 2 tasks and falls below it on 1" in sentence
    assert "rl beats base on 2 of 2 tasks and falls below it on 0" in sentence


def test_the_headline_names_the_tail_of_each_tuned_model(study: ReportData) -> None:
    tails = [panel for panel in study.specificity if panel.score == "NRN"]

    sentence = headline(study)[1]

    for panel in tails:
        assert f"{panel.tails['0.8']} of 1,900 for {panel.model}" in sentence


def test_the_caveats_name_the_numbers_of_this_study(study: ReportData) -> None:
    text = " ".join(caveats(study))

    assert "The 427 critical items were chosen because the base fails and rl succeeds" in text
    assert "holds 60 items" in text
    assert "erases contributions below 1 " in text
    assert "random sets would share 2.6 %" in text
    assert "1 crosscoder seed" in text


def test_a_fit_too_poor_for_causal_claims_is_named(study: ReportData) -> None:
    poor = replace(study.quality[0], ce_recovered={"base": 0.95, "rl": 0.5})

    assert "too little for causal claims" not in " ".join(caveats(study))
    assert (
        "at least 50.0 % of the cross-entropy (rl in joint, held-out corpus), too little for causal claims there"
        in " ".join(caveats(replace(study, quality=[poor])))
    )


def test_what_could_not_be_measured_is_no_number(study: ReportData) -> None:
    unknown = replace(study.quality[0], ce_recovered={"base": None, "rl": None})

    assert "cross-entropy they recover was not measured" in " ".join(caveats(replace(study, quality=[unknown])))


def test_a_task_that_no_model_masters_is_named(study: ReportData) -> None:
    accuracy = {"hopeless": {"base": cell(0.2, 0.3), "rl": cell(0.25, 0.35)}, "easy": {"base": cell(0.5, 0.6)}}

    assert "better than one constant answer on hopeless:" in " ".join(caveats(replace(study, accuracy=accuracy)))


def test_a_measured_noise_floor_and_batchtopk_silence_their_caveats(study: ReportData) -> None:
    measured = [replace(panel, noise_floor=0.9) for panel in study.dynamics]
    text = " ".join(caveats(replace(study, dynamics=measured, shrinkage=None)))

    assert "measured twice" not in text
    assert "L1 penalty" not in text
