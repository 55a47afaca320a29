"""Generated answers under edits, on a finished run to which one task of mathematics is added."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import datasets.config
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_study import changed, contents, summary

from featdiff.analyses.accuracy.compute import evaluate
from featdiff.analyses.intervention import run, section
from featdiff.analyses.intervention.result import GeneratedAnswers, Interventions, TaskEffect
from featdiff.evaluation.results import TaskResult
from featdiff.files import load
from featdiff.report.data import ReportData
from featdiff.report.page import write_report
from featdiff.run.evaluation import generated_tasks
from featdiff.run.plan import Plan
from featdiff.workflow.preflight import check_inputs

MATHS = "hendrycks_math500"
ITEMS, REPEATS, CONTROLS = 6, 2, 2
EDITS = {
    "zero": ("rl",),
    "set to 3.0": ("base",),
    "set to rl's mean active value": ("base", "set-to-rl-s-mean-active-value"),
}


def with_maths(plan: Plan, folder: Path, **settings: object) -> Plan:
    """The study with a task of generated answers more."""
    folder.mkdir(exist_ok=True)
    rows = [{"question": f"{number} plus {number}?", "answer": str(2 * number)} for number in range(ITEMS)]
    (folder / "math500.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {"name": MATHS, "role": "near", "repeats": REPEATS, "temperature": 1.0, "max_new_tokens": 5}
    tasks = [one.model_dump(mode="json") for one in plan.study.evaluation.tasks]
    settings = {"intervention__generated_controls": CONTROLS} | settings
    given = {"evaluation__tasks": [*tasks, task], "evaluation__data_folder": str(folder)}
    return Plan(changed(plan.study, **given, **settings))


def planted(plan: Plan) -> None:
    """Records in which rl is always right on the first four items, where the base never is; last it is the reverse."""
    for model, rights in (("rl", [1, 1, 1, 1, 0, 0]), ("base", [0, 0, 0, 0, 0, 1])):
        place = plan.run.path("evaluation", model, f"{MATHS}.parquet")
        found = TaskResult.load(place)
        samples = [
            replace(sample, rights=(bool(right),) * REPEATS, correct=bool(right))
            for sample, right in zip(found.samples, rights, strict=True)
        ]
        replace(found, samples=tuple(samples)).save(place)


@pytest.fixture(scope="module")
def asked(tiny: Plan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plan]:
    """A copy of the run in which the task is evaluated, planted, and asked again under edits. Not to be changed."""
    folder = tmp_path_factory.mktemp("generated")
    shutil.copytree(tiny.run.folder, folder / "runs" / tiny.study.name)
    plan = with_maths(Plan(changed(tiny.study, runs=str(folder / "runs"))), folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        evaluate(plan, plan.run.path("evaluation"))
        planted(plan)
        run(plan, plan.run.path("interventions"))
        yield plan


@pytest.fixture
def mine(asked: Plan, tmp_path: Path) -> Plan:
    """A copy of it, for a test that changes it."""
    shutil.copytree(asked.run.folder, tmp_path / "runs" / asked.study.name)
    return Plan(changed(asked.study, runs=str(tmp_path / "runs")))


def found_in(plan: Plan) -> Interventions:
    return load(Interventions, plan.run.path("interventions", "effects.json"))


def effects(plan: Plan) -> list[TaskEffect]:
    return [one for one in found_in(plan).effects if one.task == MATHS]


def written(effect: TaskEffect) -> GeneratedAnswers:
    assert isinstance(effect.answers, GeneratedAnswers)
    return effect.answers


def answers(plan: Plan, edit: str, name: str) -> TaskResult:
    return TaskResult.load(plan.run.path("interventions", *EDITS[edit], "answers", MATHS, f"{name}.parquet"))


def test_every_edit_is_tried_on_generated_answers_too(asked: Plan) -> None:
    assert [one.name for one in generated_tasks(asked)] == [MATHS]
    assert [one.edit for one in effects(asked)] == list(EDITS)
    short = [one for one in summary(asked)["effects"] if one["task"] == MATHS]
    assert [one["p_holm"] for one in short] == [one.p_holm for one in effects(asked)]
    assert [*short[0]][9:] == ["repeats", "answer_format", "answer_length", "p_holm"]


def test_accuracy_under_an_edit_is_that_of_the_answers_that_are_kept(asked: Plan) -> None:
    """A second road: from the stored texts' verdicts."""
    for effect in effects(asked):
        result = answers(asked, effect.edit, "chosen")
        assert all(len(sample.answers) == REPEATS for sample in result.samples)
        rights = torch.tensor([sample.rights for sample in result.samples]).double()
        sets = {"all": range(ITEMS), "critical": range(4), "held_out": range(4), "mirror": [5]}
        for name, items in sets.items():
            assert effect.sets[name].after == pytest.approx(float(rights[list(items)].mean()))
            assert effect.sets[name].n == len(items)
        texts = [text for sample in result.samples for text in sample.answers]
        assert 0 <= written(effect).answer_format.after <= 1 and written(effect).answer_length.after > 0
        assert any(text for text in texts)
    zero = effects(asked)[0]
    assert zero.sets["critical"].before == 1 and zero.sets["mirror"].before == 0
    assert written(zero).repeats == REPEATS


def test_controls_are_other_sets_of_features_and_too_few_to_support_anything(asked: Plan) -> None:
    for effect in effects(asked):
        assert effect.verdict == "underpowered" and effect.p >= 1 / (1 + CONTROLS)
        for one in effect.sets.values():
            assert len(one.control.values) == CONTROLS
        texts = [[s.answers for s in answers(asked, effect.edit, name).samples] for name in ("chosen", "control-1")]
        assert texts[0] != texts[1]


def test_claims_and_choices_are_as_they_were(asked: Plan, tiny: Plan) -> None:
    found, before = found_in(asked), found_in(tiny)
    assert found.claims == before.claims and found.doses == before.doses
    kept = [replace(one, p_holm=1.0) for one in found.effects if one.task != MATHS]
    assert kept == [replace(one, p_holm=1.0) for one in before.effects]


def test_an_attempt_that_was_killed_goes_on_from_the_answers_it_had(mine: Plan) -> None:
    folder = mine.run.path("interventions")
    wanted = contents(folder)
    (folder / "effects.json").unlink()
    (folder / "rl" / f"{MATHS}.json").unlink()
    (folder / "rl" / "answers" / MATHS / "control-2.parquet").unlink()
    run(mine, folder)
    assert contents(folder) == wanted


def test_an_edit_of_features_without_a_decoder_gives_the_recorded_answers(mine: Plan) -> None:
    path = mine.run.path("crosscoders", "joint", "crosscoder.safetensors")
    weights = load_file(path)
    weights["W_dec"][:] = 0.0
    save_file(weights, path)
    for file in mine.run.path("interventions").rglob(f"*{MATHS}*"):
        shutil.rmtree(file) if file.is_dir() else file.unlink()
    run(mine, mine.run.path("interventions"))
    for effect in effects(mine):
        recorded = TaskResult.load(mine.run.path("evaluation", effect.model, f"{MATHS}.parquet"))
        again = answers(mine, effect.edit, "chosen")
        assert [one.answers for one in again.samples] == [one.answers for one in recorded.samples]
        assert written(effect).answer_length.interval == [0.0, 0.0]


def test_without_controls_no_answers_are_generated_under_edits(asked: Plan, tmp_path: Path) -> None:
    plan = Plan(changed(asked.study, intervention__generated_controls=0))
    shutil.copytree(asked.run.path("interventions"), tmp_path / "interventions")
    run(plan, tmp_path / "interventions")
    assert MATHS not in {one.task for one in load(Interventions, tmp_path / "interventions" / "effects.json").effects}


def test_the_report_shows_them_in_a_table_of_their_own(asked: Plan, study: ReportData, tmp_path: Path) -> None:
    part = section(asked)
    assert part is not None
    page = write_report(study, tmp_path, [part]).read_text(encoding="utf-8")
    assert page.count("Tasks of generated answers, which took no part in the selection") == 3
    assert "0 of 1 task of generated answers" in page and f"{REPEATS} answers each" in page


def test_models_that_take_turns_are_refused_before_anything_is_made(asked: Plan) -> None:
    turns = Plan(changed(asked.study, lineup__turns=True))
    with pytest.raises(
        ValueError, match="hendrycks_math500: no answers can be generated under edits while models take"
    ):
        check_inputs(turns)
    check_inputs(Plan(changed(turns.study, intervention__generated_controls=0)))
    check_inputs(Plan(changed(turns.study, intervention__reading="branch")))
