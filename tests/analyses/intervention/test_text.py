"""Sentences and tables on interventions follow from the numbers by fixed rules; each rule is tried on both sides."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

from featdiff.analyses.intervention.result import (
    Claim,
    GeneratedAnswers,
    Interventions,
    SideControls,
    SideEffect,
    TaskEffect,
    by_edit,
)
from featdiff.analyses.intervention.text import (
    OPPOSITE,
    SUPPORTED,
    UNDERPOWERED,
    caveats,
    conclusion,
    findings,
    section_of,
)
from featdiff.config.intervention import ControlName
from featdiff.intervention.effect_records import BeforeAfter, ControlRecord, ControlTest, FlipsRecord, FormRecord
from featdiff.report.page import Heading, write_report
from featdiff.stats import Verdict

NOT_DISTINGUISHABLE: Verdict = "not distinguishable from random features"
UNPROVEN = "does not show that the selected features control"


def with_verdicts(effects: list[TaskEffect], verdict: Verdict) -> list[TaskEffect]:
    return [replace(effect, verdict=verdict) for effect in effects]


def generated(effect: TaskEffect, draws: int) -> TaskEffect:
    """The effect as one on generated answers."""
    control = ControlRecord(draws, 0.0, [-0.1, 0.1])
    form = FormRecord(0.5, 0.25, 40, [-0.4, -0.1], control)
    whole = effect.sets["all"]
    sets = {**effect.sets, "all": replace(whole, control=replace(whole.control, draws=draws))}
    answers = GeneratedAnswers(3, form, replace(form, before=40.0, after=44.5))
    return replace(effect, sets=sets, answers=answers)


def page(effects: list[TaskEffect], study: Heading, folder: Path, **more: object) -> str:
    found = replace(Interventions(tuple(effects)), **more)
    return write_report(study, folder, [section_of(found, 0.95)]).read_text(encoding="utf-8")


def test_the_verdicts_that_are_counted_are_those_that_can_be_given() -> None:
    assert {SUPPORTED, OPPOSITE, UNDERPOWERED, NOT_DISTINGUISHABLE} == set(get_args(Verdict))


def test_tasks_of_the_selection_are_told_from_unseen_ones(effects: list[TaskEffect]) -> None:
    judged = [replace(one, verdict=SUPPORTED if one.role == "unseen" else OPPOSITE) for one in effects]
    assert "on 0 of 3 tasks used for selection and 2 of 2 unseen tasks (opposite on 3)" in next(findings(judged, 0.95))


def test_it_is_said_what_happens_on_all_items(effects: list[TaskEffect]) -> None:
    assert "on all items accuracy changes by −2.0 points in the median" in next(findings(effects, 0.95))


def test_without_an_effect_beyond_the_controls_nothing_is_shown(effects: list[TaskEffect]) -> None:
    for verdict in (NOT_DISTINGUISHABLE, UNDERPOWERED, OPPOSITE):
        assert UNPROVEN in conclusion(with_verdicts(effects, verdict), 0.95)


def test_effects_beyond_the_controls_are_counted_and_kept_in_bounds(effects: list[TaskEffect]) -> None:
    supported = with_verdicts(effects, SUPPORTED)
    assert "in most of the tests (10 of 10)" in conclusion(supported, 0.95)
    one = [*supported[:1], *with_verdicts(effects, OPPOSITE)[1:]]
    assert "in only some of the tests (1 of 10)" in conclusion(one, 0.95)


def test_without_interventions_nothing_is_claimed(study: Heading, tmp_path: Path) -> None:
    assert conclusion([], 0.95).startswith("No intervention was made")
    text = page([], study, tmp_path, note="nothing passes")
    assert "No intervention was made" in text and "All tasks together" not in text


def test_kinds_drawn_too_rarely_do_not_decide_and_those_that_do_are_beaten_by_their_own_p(
    effects: list[TaskEffect],
) -> None:
    kinds: dict[ControlName, tuple[int, float]] = {
        "activity-matched": (5, 0.5),  # always decides
        "random directions": (38, 0.01),  # 2 / (1 + 38) > 0.05
        "uniform alive": (39, 0.025),
        "both right": (100, 1.0),  # shown only
    }
    controls = {kind: ControlTest(draws, 0.0, [0.0, 0.0], p) for kind, (draws, p) in kinds.items()}
    effect = replace(effects[0], controls=controls)
    assert effect.beaten(0.95) == {"activity-matched": False, "uniform alive": True}
    assert generated(effect, 5).beaten(0.95) == {}


def test_the_kind_that_a_task_does_not_beat_is_named(effects: list[TaskEffect], study: Heading, tmp_path: Path) -> None:
    failed = {"reversal": (False, True), "counting": (True, False), "sorting": (False, False), "dice": (True, True)}
    kinds: tuple[ControlName, ControlName] = "activity-matched", "random directions"

    def judged(effect: TaskEffect) -> TaskEffect:
        beaten = zip(kinds, failed.get(effect.task, (True, True)), strict=True)
        controls = {kind: ControlTest(50, 0.0, [0.0, 0.0], 0.02 if one else 0.5) for kind, one in beaten}
        verdict = NOT_DISTINGUISHABLE if effect.task in failed else SUPPORTED
        return replace(effect, controls=controls, verdict=verdict)

    changed = [judged(effect) for effect in effects]
    zeroed = next(findings(changed, 0.95))
    assert "(activity-matched and random directions) on 0 of 3 tasks used for selection and 1 of 2 unseen" in zeroed
    assert zeroed.split("unseen tasks (")[1].split(")")[0].split("; ") == [
        "not beyond activity-matched on 2",
        "not beyond random directions on 2",
        "no significant change on 1",
    ]
    assert "(activity-matched and random directions) in only some of the tests (2 of 10)" in conclusion(changed, 0.95)
    shown = page(changed, study, tmp_path)
    assert "<small>not beyond activity-matched</small><small>not beyond random directions</small></td>" in shown


def test_effects_are_grouped_by_what_was_done(effects: list[TaskEffect]) -> None:
    assert list(by_edit(effects)) == [("rl", "zero", "decrease"), ("base", "set to 3.0", "increase")]


def test_the_caveats_name_draws_and_tests(effects: list[TaskEffect]) -> None:
    text = " ".join(caveats(effects, 0.95))
    assert "With 50 control draws no p can be below 0.020, and 10 tests at 5 % each would give about 0.5 passes" in text
    assert list(caveats([], 0.95)) == []


def test_generated_answers_are_counted_apart_from_the_tasks_of_the_selection(effects: list[TaskEffect]) -> None:
    zeroed = with_verdicts(effects[:5], SUPPORTED)
    some = [*zeroed[:2], replace(generated(zeroed[2], 5), verdict=UNDERPOWERED), *zeroed[3:]]
    (sentence,) = findings(some, 0.95)
    assert "2 of 2 tasks used for selection, 2 of 2 unseen tasks and 0 of 1 task of generated answers" in sentence
    assert "(too few items or controls on 1)" in sentence


def test_few_controls_of_generated_answers_are_said_to_allow_no_verdict(effects: list[TaskEffect]) -> None:
    def said(draws: int) -> str:
        (text,) = [one for one in caveats([*effects[:2], generated(effects[2], draws)], 0.95) if "asked again" in one]
        return text

    assert "5 sets of random features, so no p there can be below 0.17, too few for any verdict" in said(5)
    assert "too few" not in said(39)


def test_a_rise_is_compared_with_guessing_again_on_every_task(effects: list[TaskEffect]) -> None:
    def said(guessing: float) -> str:
        rises = [replace(one, answers=replace(one.choices, guessing_again=guessing)) for one in effects if one.choices]
        (text,) = [one for one in caveats(rises, 0.95) if "picked at random" in one]
        return text

    assert "on 0 of 5 tasks" in said(0.0) and "on 5 of 5 tasks" in said(1.0)


def test_the_page_shows_what_it_was_given_and_escapes_names(
    effects: list[TaskEffect], study: Heading, tmp_path: Path
) -> None:
    kinds: dict[ControlName, ControlRecord] = {"mean difference": ControlRecord(1, -0.4, [-0.4, -0.4])}
    flips = FlipsRecord(37, 0, 0.001)
    claim = Claim(120, -0.31, [-0.4, -0.2], flips, kinds, 0.024, SUPPORTED, "rl", "zero", "decrease", 3)
    control = SideControls(2, (0.011, 0.012))
    side = SideEffect(0.0312, BeforeAfter(3.1, 3.2), 4096, "rl", "zero", 5, control)
    named = [replace(effects[0], task="dice & co"), *effects[1:9], generated(effects[9], 5)]
    text = page(named, study, tmp_path, claims=(claim,), side_effects=(side,))
    for words in (
        "All tasks together", "−31.0", "n = 120, 3 tasks", "0.031", "3.100 → 3.200", "0.011, 0.012",
        "dice &amp; co", "18.0", "75.0 → 50.0", "9 31", "→ 20 20", "3 answers each", "44.5",
        "(the paper&#39;s Table 2)", "(the paper&#39;s Table 5)", "−46.2",
    ):  # fmt: skip
        assert words in text, words
