"""Interventions of a run: each effect beside its controls, on the items that the records name."""

import shutil
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_study import changed

from featdiff.causal.outcomes import Outcomes
from featdiff.pipeline.evaluate import outcomes_of
from featdiff.pipeline.intervene import intervene
from featdiff.pipeline.plan import Plan
from featdiff.pipeline.select import held_out_parts
from featdiff.pipeline.verbs import run_study
from featdiff.runs import read_json, write_json

TASKS = ("colours", "animals", "numbers")


@pytest.fixture
def effects(tiny: Plan) -> list[dict[str, Any]]:
    return read_json(tiny.run.path("summary.json"))["effects"]


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


def test_the_tuned_model_loses_features_and_the_base_gains_them_on_every_task(effects: list[dict[str, Any]]) -> None:
    wanted = [("rl", "zero", task) for task in TASKS] + [("base", "set to 3.0", task) for task in TASKS]
    assert [(effect["model"], effect["edit"], effect["task"]) for effect in effects] == wanted


def test_before_the_edit_a_model_is_as_right_as_its_records_say(tiny: Plan, effects: list[dict[str, Any]]) -> None:
    for effect in effects:
        outcomes = outcomes_of(tiny, effect["task"])
        right = outcomes[effect["model"]]
        for name, items in sets(tiny, outcomes).items():
            found = effect["sets"][name]
            assert found["n"] == len(items)
            assert found["before"] == pytest.approx(float(right[items].double().mean()))
    assert all(effect["sets"]["critical"]["before"] == float(effect["model"] == "rl") for effect in effects)


def test_changes_lie_in_their_intervals_and_controls_are_as_many_as_drawn(tiny: Plan) -> None:
    records = read_json(tiny.run.path("interventions", "effects.json"))["records"]
    for record in records:
        for one in record["sets"].values():
            change = one["after"] - one["before"]
            assert one["interval"][0] <= change + 1e-12 and change - 1e-12 <= one["interval"][1]
            values = one["control"]["values"]
            assert len(values) == 6 and one["control"]["mean"] == pytest.approx(sum(values) / 6)
            down = record["expected"] == "decrease"
            lead = [round((change - value) * one["n"]) for value in values]  # in items, free of rounding
            extreme = sum(items >= 0 if down else items <= 0 for items in lead)
            assert one["p"] == pytest.approx((1 + extreme) / 7)
    assert {record["features"] for record in records} == {
        len(read_json(tiny.run.path("selection", "selection.json"))["chosen"])
    }


def test_each_model_and_task_has_a_file_of_its_own(tiny: Plan) -> None:
    effects = read_json(tiny.run.path("interventions", "effects.json"))
    for index, (model, task) in enumerate((model, task) for model in ("rl", "base") for task in TASKS):
        one = read_json(tiny.run.path("interventions", model, f"{task}.json"))
        assert one == {"effect": effects["effects"][index], "record": effects["records"][index]}


def test_what_an_attempt_has_finished_is_taken_over(own: Plan) -> None:
    wanted = own.run.path("interventions", "effects.json").read_bytes()
    folder = own.run.path("interventions")
    (folder / "effects.json").unlink()
    (folder / "base" / "animals.json").unlink()
    intervene(own, folder)
    assert (folder / "effects.json").read_bytes() == wanted


def test_an_edit_of_features_without_a_decoder_changes_no_answer(own: Plan) -> None:
    path = own.run.path("crosscoders", "joint", "crosscoder.safetensors")
    weights, chosen = load_file(path), read_json(own.run.path("selection", "selection.json"))["chosen"]
    half = read_json(own.run.path("selection", "selection.json"))["without_held_out"]["chosen"]
    weights["W_dec"][chosen + half] = 0.0
    save_file(weights, path)
    shutil.rmtree(own.run.path("interventions"))
    own.run.path("interventions").mkdir()
    intervene(own, own.run.path("interventions"))
    for effect in read_json(own.run.path("interventions", "effects.json"))["effects"]:
        assert all(one["after"] == one["before"] for one in effect["sets"].values())


def test_items_are_drawn_from_the_task_where_the_study_says_how_many(own: Plan) -> None:
    plan = Plan(changed(own.study, intervention__items=20, intervention__controls=2))
    own.run.path("new").mkdir()
    intervene(plan, own.run.path("new"))
    drawn = set(torch.randperm(48, generator=torch.Generator().manual_seed(0))[:20].tolist())
    for effect in read_json(own.run.path("new", "effects.json"))["effects"]:
        wanted = sets(own, outcomes_of(own, effect["task"]))
        counted = {name: len(drawn & set(items)) for name, items in wanted.items()}
        assert {name: one["n"] for name, one in effect["sets"].items()} == counted


def test_where_nothing_was_chosen_there_are_no_effects_and_the_report_still_comes(own: Plan) -> None:
    selection = read_json(own.run.path("selection", "selection.json"))
    note = "nothing: no feature passes the threshold in any task"
    write_json(own.run.path("selection", "selection.json"), selection | {"chosen": [], "rule": note})
    for folder in ("interventions", "figures"):
        shutil.rmtree(own.run.path(folder))
    own.run.path("report.html").unlink()
    assert run_study(own.study).is_file()
    assert read_json(own.run.path("interventions", "effects.json")) == {"effects": [], "records": [], "note": note}
    summary = read_json(own.run.path("summary.json"))
    assert summary["effects"] == [] and summary["selection"]["chosen"] == [] and summary["selection"]["rule"] == note
