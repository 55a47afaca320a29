"""Interventions of a run: each effect against its controls, on the items that the records name."""

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_study import changed

from featdiff.analyses.intervention import run
from featdiff.analyses.intervention.result import ChoiceAnswers, Interventions, TaskDoses, TaskEffect
from featdiff.evaluation.outcomes import Outcomes
from featdiff.files import load, read_json, write_json
from featdiff.intervention.experiment import KINDS
from featdiff.run.evaluation import held_out_parts, outcomes_of
from featdiff.run.plan import Plan
from featdiff.workflow.runner import run_study

TASKS = ("colours", "animals", "numbers")


def found_in(plan: Plan, folder: str = "interventions") -> Interventions:
    return load(Interventions, plan.run.path(folder, "effects.json"))


@pytest.fixture(scope="module")
def found(tiny: Plan) -> Interventions:
    return found_in(tiny)


def sets(plan: Plan, outcomes: Outcomes) -> dict[str, list[int]]:
    """Items by set; of an unseen task all critical items are held out."""
    base, rl = outcomes["base"], outcomes["rl"]
    found = {
        "critical": (~base & rl).nonzero().flatten().tolist(),
        "mirror": (base & ~rl).nonzero().flatten().tolist(),
        "all": list(range(len(base))),
    }
    unseen = outcomes.task == "numbers"
    held_out = found["critical"] if unseen else held_out_parts(plan, outcomes.task).held_out.tolist()
    return found | {"held_out": held_out}


def test_the_tuned_model_loses_features_and_the_base_gains_them_on_every_task(found: Interventions) -> None:
    edits = [("rl", "zero"), ("base", "set to 3.0"), ("base", "set to rl's mean active value")]
    wanted = [(model, edit, task) for model, edit in edits for task in TASKS]
    assert [(effect.model, effect.edit, effect.task) for effect in found.effects] == wanted
    assert [effect.role for effect in found.effects[:3]] == ["train", "far", "unseen"]


def test_the_summary_holds_the_short_form_of_every_effect(tiny: Plan, found: Interventions) -> None:
    summary = read_json(tiny.run.path("summary.json"))
    for one, effect in zip(summary["effects"], found.effects, strict=True):
        assert [*one][:9] == ["task", "model", "edit", "features", "sets", "control", "p", "verdict", "controls"]
        assert [*one][9:] == ["predictions", "answer_format", "guessing_again", "p_holm"]
        assert [*one["sets"]["all"]] == ["before", "after", "n", "interval"]
        assert (one["p"], one["p_holm"]) == (effect.p, effect.p_holm)
    assert [one["edit"] for one in summary["claims"]] == [one["edit"] for one in summary["side_effects"]]


def test_before_the_edit_a_model_is_as_right_as_its_records_say(tiny: Plan, found: Interventions) -> None:
    for effect in found.effects:
        outcomes = outcomes_of(tiny, effect.task)
        right = outcomes[effect.model]
        for name, items in sets(tiny, outcomes).items():
            assert effect.sets[name].n == len(items)
            assert effect.sets[name].before == pytest.approx(float(right[items].double().mean()))
        assert effect.sets["critical"].before == float(effect.model == "rl")


def test_changes_lie_in_their_intervals_and_controls_are_as_many_as_drawn(tiny: Plan, found: Interventions) -> None:
    for effect in found.effects:
        for one in effect.sets.values():
            change = one.change
            assert change is not None and one.interval[0] <= change + 1e-12 and change - 1e-12 <= one.interval[1]
            values = one.control.values
            assert len(values) == 6 and one.control.mean == pytest.approx(sum(values) / 6)
            lead = [round((change - value) * one.n) for value in values]  # in items, free of rounding
            extreme = sum(items >= 0 if effect.expected == "decrease" else items <= 0 for items in lead)
            assert one.p == pytest.approx((1 + extreme) / 7)  # six draws of other kinds are too few to decide
            assert set(one.controls) == {kind for kind in KINDS if kind != "activity-matched"}
            assert all(len(kind.values) == 6 for kind in one.controls.values())
            assert one.flips.gained - one.flips.lost == round(change * one.n)
    selected = read_json(tiny.run.path("selection", "selection.json"))["chosen"]
    assert {effect.features for effect in found.effects} == {len(selected)}


def test_each_model_and_task_has_a_file_of_its_own(tiny: Plan, found: Interventions) -> None:
    folders = [("rl",), ("base",), ("base", "set-to-rl-s-mean-active-value")]
    places = [tiny.run.path("interventions", *folder, f"{task}.json") for folder in folders for task in TASKS]
    for place, effect in zip(places, found.effects, strict=True):
        assert replace(load(TaskEffect, place), p_holm=effect.p_holm) == effect


def test_p_is_adjusted_for_the_tasks_of_one_edit(found: Interventions) -> None:
    for start in range(0, len(found.effects), len(TASKS)):
        p = sorted((one.p, one.p_holm) for one in found.effects[start : start + len(TASKS)])
        stepped = [min(1.0, (len(p) - rank) * raw) for rank, (raw, _) in enumerate(p)]
        assert [adjusted for _, adjusted in p] == pytest.approx([max(stepped[: i + 1]) for i in range(len(p))])


def test_a_claim_takes_the_held_out_items_of_all_tasks_together(found: Interventions) -> None:
    for index, claim in enumerate(found.claims):
        effects = found.effects[index * 3 : index * 3 + 3]
        parts = [one.sets["held_out"] for one in effects]
        assert (claim.model, claim.edit, claim.expected) == effects[0].edit_key
        assert claim.n == sum(part.n for part in parts) and claim.tasks == 3
        assert claim.change == pytest.approx(sum(part.change or 0 for part in parts) / 3)
        mean = sum(part.control.mean or 0 for part in parts) / 3
        assert claim.controls["activity-matched"].mean == pytest.approx(mean)


def test_predictions_before_an_edit_are_those_on_record(tiny: Plan, found: Interventions) -> None:
    for effect in found.effects:
        outcomes, answers = outcomes_of(tiny, effect.task), effect.answers
        assert isinstance(answers, ChoiceAnswers) and effect.choices is answers and effect.generated is None
        row = outcomes.prediction[outcomes.models.index(effect.model)]
        assert list(answers.predictions.before) == torch.bincount(row, minlength=4).tolist()
        assert sum(answers.predictions.after) == len(row)
        assert 0 <= answers.answer_format.before <= 1 and 0 <= answers.answer_format.after <= 1
        assert answers.guessing_again == pytest.approx(1 / 3)


def test_a_dose_of_zero_is_the_edit_that_zeroes(found: Interventions) -> None:
    zeroed = {one.task: one.sets for one in found.effects if one.edit == "zero"}
    swept: dict[str, TaskDoses] = {one.task: one for one in found.doses if one.model == "rl"}
    for task in TASKS:
        assert swept[task].doses == (0.0, 1.0) and swept[task].draws == 2
        for name in ("all", "critical"):
            assert swept[task].sets[name].selected[0] == pytest.approx(zeroed[task][name].after)
            assert swept[task].sets[name].before == pytest.approx(zeroed[task][name].before)


def test_every_edit_has_its_side_effects_on_neutral_text(found: Interventions) -> None:
    assert [one.edit for one in found.side_effects] == ["zero", "set to 3.0", "set to rl's mean active value"]
    for one in found.side_effects:
        assert one.kl and one.kl > 0 and one.tokens > 100 and len(one.control.kl) == 1
        assert one.cross_entropy and one.cross_entropy.before != one.cross_entropy.after


def test_what_an_attempt_has_finished_is_taken_over(own: Plan) -> None:
    wanted = own.run.path("interventions", "effects.json").read_bytes()
    folder = own.run.path("interventions")
    (folder / "effects.json").unlink()
    (folder / "base" / "animals.json").unlink()
    (folder / "rl" / "doses" / "colours.json").unlink()
    (folder / "rl" / "side_effects.json").unlink()
    run(own, folder)
    assert (folder / "effects.json").read_bytes() == wanted


def test_an_edit_of_features_without_a_decoder_changes_no_answer(own: Plan) -> None:
    path = own.run.path("crosscoders", "joint", "crosscoder.safetensors")
    weights, chosen = load_file(path), read_json(own.run.path("selection", "selection.json"))["chosen"]
    half = read_json(own.run.path("selection", "selection.json"))["without_held_out"]["chosen"]
    weights["W_dec"][chosen + half] = 0.0
    save_file(weights, path)
    shutil.rmtree(own.run.path("interventions"))
    own.run.path("interventions").mkdir()
    run(own, own.run.path("interventions"))
    for effect in found_in(own).effects:
        assert all(one.after == one.before for one in effect.sets.values())


def test_items_are_drawn_from_the_task_where_the_study_says_how_many(own: Plan) -> None:
    plan = Plan(changed(own.study, intervention__items=20, intervention__controls=2))
    own.run.path("new").mkdir()
    run(plan, own.run.path("new"))
    drawn = set(torch.randperm(48, generator=torch.Generator().manual_seed(0))[:20].tolist())
    for effect in found_in(own, "new").effects:
        wanted = sets(own, outcomes_of(own, effect.task))
        counted = {name: len(drawn & set(items)) for name, items in wanted.items()}
        assert {name: one.n for name, one in effect.sets.items()} == counted


def test_where_nothing_was_chosen_there_are_no_effects_and_the_report_still_comes(own: Plan) -> None:
    selection = read_json(own.run.path("selection", "selection.json"))
    note = "nothing: no feature passes the threshold in any task"
    write_json(own.run.path("selection", "selection.json"), selection | {"chosen": [], "rule": note})
    for folder in ("interventions", "figures"):
        shutil.rmtree(own.run.path(folder))
    own.run.path("report.html").unlink()
    assert run_study(own.study).is_file()
    assert found_in(own) == Interventions((), note=note)
    summary = read_json(own.run.path("summary.json"))
    assert (
        summary["effects"] == []
        and "claims" not in summary
        and summary["selection"]["chosen"] == []
        and summary["selection"]["rule"] == note
    )
    assert "since no feature was selected" in own.run.path("report.html").read_text()
