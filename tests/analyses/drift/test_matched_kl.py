"""The control of drift, from its own training to the table of models at equal drift."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_study import changed, contents, summary, write_posttrained_study

from featdiff.analyses.drift.compute import drift
from featdiff.analyses.drift.report_drift import drift_panel
from featdiff.analyses.drift.result import DriftPanel
from featdiff.analyses.drift.tails import Tails
from featdiff.analyses.drift.text import equal_drift_verdicts
from featdiff.attribution.tail_comparison import unanimous
from featdiff.config.study_file import read_study
from featdiff.evaluation.results import TaskResult
from featdiff.files import read_json
from featdiff.posttraining.stages import rft
from featdiff.run.plan import Plan
from featdiff.workflow.registry import stages_of
from featdiff.workflow.runner import run_verb

pytest.importorskip("trl")

MODELS, WAYS = ("sft", "rl", "rft"), ("as trained", "mixed with the base", "nearest checkpoint")
LINEUPS = {name: {"models": ["base", *name.split("-")[1:]]} for name in ("base-sft", "base-rl", "base-sft-rl")}


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A study with the control, after `drift`."""
    folder = tmp_path_factory.mktemp("controlled")
    study = changed(
        read_study(write_posttrained_study(folder)),
        runs=str(folder / "runs"),
        posttrain__rejection={"samples": 2, "max_completion_length": 8, "batch_size": 5},
        crosscoder__lineups=LINEUPS,
        drift={"alphas": [0.5], "min_active": 5, "accuracy_items": 20},
    )
    for verb in ("sft", "grpo", "rft", "evaluate", "train", "drift"):
        run_verb(study, verb)
    return Plan(study)


@pytest.fixture(scope="module")
def record(plan: Plan) -> dict[str, Any]:
    return read_json(plan.run.path("drift", "drift.json"))


def models(record: dict[str, Any], way: str) -> dict[str, dict[str, Any]]:
    return {one["of"]: one for one in record["equal"]["models"] if one["way"] == way}


# ------------------------------------------------------------------ its training


def test_the_control_has_checkpoints_of_its_own_and_counts_what_was_drawn(plan: Plan) -> None:
    trail = plan.trail("rft")
    assert list(trail) == ["rft-1", "rft-2", "rft"] and trail["rft"] == trail["rft-2"]
    weights = {name: load_file(Path(path) / "model.safetensors") for name, path in (plan.paths | trail).items()}
    for one, other in (("base", "rft-1"), ("rft-1", "rft-2"), ("rft-2", "sft-2"), ("rft-2", "rl-2")):
        assert any(not torch.equal(weights[one][key], weights[other][key]) for key in weights[one])
    traces = read_json(plan.run.path("posttrain", "rft", "traces.json"))
    assert traces["prompts"] == 12 and traces["drawn"] == traces["kept"] + traces["wrong"] + traces["repeated"]
    assert read_json(plan.run.path("posttrain", "rft", "examples.json"))["used"] == traces["kept"] > 0


def test_making_the_control_again_gives_the_same_bytes(plan: Plan, tmp_path: Path) -> None:
    samples = plan.run.path("posttrain", "rft", "samples.jsonl").read_bytes()
    (tmp_path / "samples.jsonl").write_bytes(samples[: len(samples) // 2])  # an attempt that was killed
    rft(plan, tmp_path)
    again, before = contents(tmp_path), contents(plan.run.path("posttrain", "rft"))
    del before["stage.json"]
    assert again == before


def test_the_control_is_no_member_of_the_lineup_and_leaves_the_other_stages_alone(plan: Plan) -> None:
    assert plan.models == ("base", "sft", "rl") and plan.drifting == MODELS
    without = Plan(changed(plan.study, posttrain__rejection=None))
    assert without.drifting == ("sft", "rl") and "rft" not in [stage.name for stage in stages_of(without)]
    stale = [stage.name for stage in stages_of(without) if without.run.state(stage) == "stale"]
    assert stale == ["drift"]


# ------------------------------------------------------------------ its drift


def test_every_way_has_every_model_and_the_least_moved_one_as_it_is(plan: Plan, record: dict[str, Any]) -> None:
    least, rows = record["least"], {row["name"]: row for row in record["rows"]}
    for way in WAYS:
        found = models(record, way)
        assert tuple(found) == MODELS and found[least]["name"] == least
        assert all(found[of]["kl_task"] == rows[found[of]["name"]]["kl_task"] for of in MODELS)
    wanted = record["task_divergence"][least]
    assert all(one["kl_task"] == pytest.approx(wanted, rel=0.02) for one in models(record, WAYS[1]).values())
    for of, one in models(record, WAYS[2]).items():
        distance = {name: abs(rows[name]["kl_task"] - wanted) for name in plan.trail(of) if name in rows}
        assert of == least or distance[one["name"]] == min(distance.values())


def test_the_control_is_read_in_the_place_of_every_tuned_model(plan: Plan, record: dict[str, Any]) -> None:
    for row in record["rows"]:
        own = row["tuned"] != "rft"
        assert (row["tails"] is not None) == own and list(row["crossed"]) == ([] if own else ["sft", "rl"])
    tails, path = Tails(plan), plan.trail("rft")["rft"]
    (row,) = [row for row in record["rows"] if row["name"] == "rft"]
    for place in ("sft", "rl"):
        specificity = tails.specificity(place, path)
        assert row["crossed"][place]["0.8"] == int((tails.alive(place) & (specificity > 0.8)).sum())
        assert models(record, WAYS[0])["rft"]["tails"][place] == row["crossed"][place]


def test_accuracy_is_that_of_the_same_first_items_for_every_model(plan: Plan, record: dict[str, Any]) -> None:
    def mean(folder: Path) -> float:
        results = [TaskResult.load(folder / f"{task.name}.parquet") for task in plan.study.evaluation.tasks]
        return sum(sum(one.correct for one in result.samples[:20]) / 20 for result in results) / len(results)

    base, whole = record["equal"]["base"], models(record, WAYS[0])
    assert base["value"] == pytest.approx(mean(plan.run.path("evaluation", "base"))) and base["items"] == 60
    for tuned in ("sft", "rl"):
        assert whole[tuned]["accuracy"]["value"] == pytest.approx(mean(plan.run.path("evaluation", tuned)))
    assert whole["rft"]["accuracy"]["value"] == pytest.approx(mean(plan.run.path("drift", "evaluation", "rft")))
    for one in record["equal"]["models"]:
        gain = one["accuracy"]["gain"]
        assert gain["value"] == pytest.approx(one["accuracy"]["value"] - base["value"])
        assert gain["interval"][0] <= gain["value"] <= gain["interval"][1]


def test_both_questions_are_asked_in_every_way_and_the_control_through_both_crosscoders(record: dict[str, Any]) -> None:
    asked = [(one["way"], one["first"], one["second"]) for one in record["equal"]["questions"]]
    assert asked == [(way, *pair) for way in WAYS for pair in (("sft", "rl"), ("rft", "sft"))]
    for question in record["equal"]["questions"]:
        places = [reading["places"] for reading in question["readings"]]
        assert places == ([["sft", "rl"]] if question["first"] == "sft" else [["sft", "sft"], ["rl", "rl"]])
        assert question["order"] == unanimous(reading["order"] for reading in question["readings"])
        compared = models(record, question["way"])
        value = compared[question["first"]]["accuracy"]["value"] - compared[question["second"]]["accuracy"]["value"]
        assert question["gain"]["value"] == pytest.approx(value)


def test_a_killed_drift_goes_on_with_what_was_evaluated_to_the_same_bytes(plan: Plan, tmp_path: Path) -> None:
    made = plan.run.path("drift")
    shutil.copytree(made / "evaluation" / "rft", tmp_path / "evaluation" / "rft")
    before = (tmp_path / "evaluation" / "rft" / "colours.parquet").stat().st_mtime_ns
    drift(plan, tmp_path)
    again, wanted = contents(tmp_path), contents(made)
    del wanted["stage.json"]
    assert again == wanted
    assert (tmp_path / "evaluation" / "rft" / "colours.parquet").stat().st_mtime_ns == before


def test_report_and_summary_have_the_answers(plan: Plan, record: dict[str, Any]) -> None:
    panel = drift_panel(plan)
    assert isinstance(panel, DriftPanel) and panel.controls == ["rft"] and panel.places == ["sft", "rl"]
    answer = equal_drift_verdicts(panel.equal, panel.least, 0.95)[0]
    assert "RL's own right answers (rft)" in answer and "through rl's crosscoder" in answer
    assert summary(plan)["equal_drift"] == record["equal"]
    assert summary(plan)["drift"]["rft"]["rft"]["crossed"].keys() == {"sft", "rl"}
