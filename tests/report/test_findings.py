"""Sentences follow from the numbers by fixed rules; each rule is tried on both sides."""

from dataclasses import replace
from typing import get_args

from featdiff.analyses.intervention.result import FormChange, GeneratedRow, KindRow
from featdiff.report.data import EffectRow, ReportData, SetChange
from featdiff.report.findings import (
    OPPOSITE,
    SUPPORTED,
    UNDERPOWERED,
    caveats,
    conclusion,
    groups,
    headline,
)
from featdiff.stats import Verdict

NOT_DISTINGUISHABLE = "not distinguishable from random features"


def with_verdicts(study: ReportData, verdict: str) -> list[EffectRow]:
    return [replace(effect, verdict=verdict) for effect in study.effects]


def test_the_verdicts_that_are_counted_are_those_that_can_be_given() -> None:
    assert {SUPPORTED, OPPOSITE, UNDERPOWERED, NOT_DISTINGUISHABLE} == set(get_args(Verdict))


def test_the_headline_tells_tasks_of_the_selection_from_unseen_ones(study: ReportData) -> None:
    effects = [
        replace(effect, verdict="supported" if effect.role == "unseen" else "opposite") for effect in study.effects
    ]

    sentences = " ".join(headline(replace(study, effects=effects)))

    assert "on 0 of 3 tasks used for selection and 2 of 2 unseen tasks (opposite on 3)" in sentences


def test_the_headline_says_what_happens_on_all_items(study: ReportData) -> None:
    assert "on all items accuracy changes by −2.0 points in the median" in " ".join(headline(study))


def test_no_effect_beyond_the_controls_is_said_to_show_nothing(study: ReportData) -> None:
    assert "does not show that the selected features control" in conclusion(with_verdicts(study, NOT_DISTINGUISHABLE))
    assert "does not show that the selected features control" in conclusion(with_verdicts(study, "underpowered"))
    assert "does not show that the selected features control" in conclusion(with_verdicts(study, "opposite"))


def test_effects_beyond_the_controls_are_counted_and_kept_in_bounds(study: ReportData) -> None:
    supported = with_verdicts(study, "supported")

    assert "in most of the tests (10 of 10)" in conclusion(supported)
    assert "in only some of the tests (1 of 10)" in conclusion([*supported[:1], *with_verdicts(study, "opposite")[1:]])
    assert "nor that they make the gain" in conclusion(supported)


def test_without_interventions_nothing_is_claimed() -> None:
    assert conclusion([]).startswith("No intervention was made")


def test_the_headline_names_the_controls_that_decide_and_the_kind_that_a_task_does_not_beat(study: ReportData) -> None:
    failed = {"reversal": (False, True), "counting": (True, False), "sorting": (False, False), "dice": (True, True)}
    effects = [
        replace(
            effect,
            verdict=NOT_DISTINGUISHABLE if effect.task in failed else SUPPORTED,
            beaten=dict(
                zip(("activity-matched", "random directions"), failed.get(effect.task, (True, True)), strict=True)
            ),
        )
        for effect in study.effects
    ]
    (zeroed,) = [text for text in headline(replace(study, effects=effects)) if "set to 0" in text]
    assert "(activity-matched and random directions) on 0 of 3 tasks used for selection and 1 of 2 unseen" in zeroed
    inside = zeroed.split("unseen tasks (")[1].split(")")[0].split("; ")
    assert inside == [
        "not beyond activity-matched on reversal and sorting",
        "not beyond random directions on counting and sorting",
        "no significant change on dice",
    ]
    assert "(activity-matched and random directions) in only some of the tests (2 of 10)" in conclusion(effects)


def test_effects_are_grouped_by_what_was_done(study: ReportData) -> None:
    assert list(groups(study.effects)) == [("rl", "zero", "decrease"), ("base", "set to 3.0", "increase")]


def test_the_caveats_name_the_numbers_of_this_study(study: ReportData) -> None:
    text = " ".join(caveats(study))

    assert "With 50 control draws no p can be below 0.020, and 10 tests at 5 % each would give about 0.5 passes" in text
    assert "random sets would share 2.6 %" in text


def test_what_could_not_be_measured_is_no_number(study: ReportData) -> None:
    effects = [replace(effect, sets={"all": SetChange(None, None, 0, [-1, 1])}) for effect in study.effects]

    assert "on all items" not in " ".join(headline(replace(study, effects=effects)))


def test_a_measured_noise_floor_silences_its_caveat(study: ReportData) -> None:
    measured = [replace(panel, noise_floor=0.9) for panel in study.dynamics]

    assert "measured twice" not in " ".join(caveats(replace(study, dynamics=measured)))


def written(effect: EffectRow, draws: int) -> EffectRow:
    """The effect as one on generated answers."""
    kind = KindRow(draws, 0.0, [-0.1, 0.1], 0.5)
    form = FormChange(0.5, 0.25, [-0.4, -0.1], kind)
    return replace(effect, generated=GeneratedRow(3, 9, 2, 0.065, kind, form, replace(form, before=40.0, after=44.5)))


def test_generated_answers_are_counted_apart_from_the_tasks_of_the_selection(study: ReportData) -> None:
    zeroed = [replace(effect, verdict=SUPPORTED) for effect in study.effects if effect.edit == "zero"]
    effects = [*zeroed[:2], replace(written(zeroed[2], 5), verdict=UNDERPOWERED), *zeroed[3:]]
    (sentence,) = [text for text in headline(replace(study, effects=effects)) if "set to 0" in text]
    assert "2 of 2 tasks used for selection, 2 of 2 unseen tasks and 0 of 1 task of generated answers" in sentence
    assert "(too few items or controls on 1)" in sentence


def test_few_controls_of_generated_answers_are_said_to_allow_no_verdict(study: ReportData) -> None:
    def said(draws: int) -> list[str]:
        return caveats(replace(study, effects=[*study.effects[:2], written(study.effects[2], draws)]))

    (few,) = [text for text in said(5) if "asked again" in text]
    assert "5 sets of random features, so no p there can be below 0.17, too few for any verdict but underpowered" in few
    (many,) = [text for text in said(39) if "asked again" in text]
    assert "too few" not in many
    (choices,) = [text for text in said(5) if "control draws" in text]
    assert choices.startswith("With 50 control draws") and "2 tests" in choices


def test_a_rise_is_compared_with_guessing_again_on_every_task(study: ReportData) -> None:
    rises = [effect for effect in study.effects if effect.expected == "increase"]
    assert not [caveat for caveat in caveats(study) if "at random" in caveat]

    def said(guessing: float) -> list[str]:
        effects = [replace(effect, guessing_again=guessing) for effect in study.effects]
        return [caveat for caveat in caveats(replace(study, effects=effects)) if "picked at random" in caveat]

    (above,), (below,) = said(0.0), said(1.0)
    assert f"on 0 of {len(rises)} tasks" in above and f"on {len(rises)} of {len(rises)} tasks" in below
    assert "base answers every held-out critical item wrongly" in above
