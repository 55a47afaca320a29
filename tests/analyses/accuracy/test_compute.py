"""Evaluation as it lies in the run: every item of every task, by every model, and the accuracy that follows."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from made_up_accuracy import made_up
from scipy.stats import binomtest
from transformers import PreTrainedModel

from featdiff.analyses import accuracy
from featdiff.analyses.accuracy.text import table_of
from featdiff.config.study import EvaluationSettings
from featdiff.evaluation.harness import evaluate as evaluate_model
from featdiff.evaluation.results import TaskResult
from featdiff.files import read_json
from featdiff.models.loading import Lineup, Tokenizer, load_model, load_tokenizer
from featdiff.run.evaluation import choice_tasks, outcomes_of, requests_of
from featdiff.run.models import load_lineup
from featdiff.run.plan import Plan

TASKS = ("colours", "animals", "numbers")


@pytest.fixture(scope="module")
def lineup(tiny: Plan) -> Lineup:
    return load_lineup(tiny, tiny.models)


def test_choices_are_scored_by_the_likelihood_of_their_tokens(tiny: Plan) -> None:
    model, tokenizer = load_model(tiny.paths["rl"]), load_tokenizer(tiny.paths["rl"])
    for sample in TaskResult.load(tiny.run.path("evaluation", "rl", "animals.parquet")).samples[:5]:
        by_hand = []
        for choice in sample.choices:
            asked = len(tokenizer(sample.prompt)["input_ids"])
            ids = torch.tensor([tokenizer(sample.prompt + choice)["input_ids"]])
            chances = model(ids).logits[0, :-1].log_softmax(dim=-1)
            by_hand.append(float(chances.gather(1, ids[0, 1:, None])[asked - 1 :].sum()))
        assert sample.log_likelihoods == pytest.approx(by_hand, abs=1e-4)
        assert sample.prediction_acc == max(range(4), key=by_hand.__getitem__)
        assert sample.correct == (sample.prediction_acc == sample.target)


@pytest.mark.parametrize("task", TASKS)
def test_every_item_of_the_data_is_there_once_and_in_order(tiny: Plan, study_file: Path, task: str) -> None:
    rows = [json.loads(line) for line in (study_file.parent / "tasks" / f"{task}.jsonl").read_text().splitlines()]
    samples = TaskResult.load(tiny.run.path("evaluation", "sft", f"{task}.parquet")).samples
    assert [(s.prompt, list(s.choices), s.target) for s in samples] == [
        (row["question"], row["choices"], row["answer"]) for row in rows
    ]


def test_accuracies_stand_beside_the_best_constant_answer_and_the_role(tiny: Plan, study_file: Path) -> None:
    table = table_of(tiny)
    for task, role in (("colours", "train"), ("animals", "far"), ("numbers", "unseen")):
        lines = (study_file.parent / "tasks" / f"{task}.jsonl").read_text().splitlines()
        most = max(Counter(json.loads(line)["answer"] for line in lines).values())
        assert all(one.constant_baseline == most / 48 and one.role == role for one in table[task].values())


def test_intervals_and_churn_agree_with_scipy(tiny: Plan) -> None:
    table = table_of(tiny)
    for task in TASKS:
        right = {model: outcomes_of(tiny, task)[model] for model in tiny.models}
        for model, one in table[task].items():
            wilson = binomtest(int(right[model].sum()), 48).proportion_ci(method="wilson")
            assert one.interval == pytest.approx((wilson.low, wilson.high))
            if one.gain and one.flips:
                gained, lost = int((right[model] & ~right["base"]).sum()), int((~right[model] & right["base"]).sum())
                assert (one.flips.gained, one.flips.lost) == (gained, lost)
                assert one.flips.p == pytest.approx(binomtest(gained, gained + lost).pvalue)
                assert one.gain.value == pytest.approx((gained - lost) / 48)
                assert one.gain.interval[0] <= one.gain.value <= one.gain.interval[1]
            assert (model == "base") == (one.gain is None) == (one.flips is None)


def test_requests_are_the_items_of_the_records(tiny: Plan, lineup: Lineup) -> None:
    for task in TASKS:
        requests, outcomes = requests_of(tiny, task, lineup), outcomes_of(tiny, task)
        assert requests.sample_ids == outcomes.sample_ids and requests.choice_counts.tolist() == [4] * 48
        target = TaskResult.load(tiny.run.path("evaluation", "base", f"{task}.parquet")).target
        assert requests.target.tolist() == target.tolist()


def test_a_task_of_generated_answers_is_no_task_of_choices(own: Plan) -> None:
    assert [task.name for task in choice_tasks(own)] == list(TASKS)
    place = own.run.path("evaluation", "base", "numbers.parquet")
    replace(TaskResult.load(place), kind="generate_until", metric="exact_match").save(place)
    assert [task.name for task in choice_tasks(own)] == ["colours", "animals"]


def test_what_an_attempt_has_finished_is_not_evaluated_again(own: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def counted(
        model: PreTrainedModel, tokenizer: Tokenizer, settings: EvaluationSettings, *, seed: int
    ) -> list[TaskResult]:
        asked.append([task.name for task in settings.tasks])
        return evaluate_model(model, tokenizer, settings, seed=seed)

    monkeypatch.setattr("featdiff.run.evaluation.evaluate", counted)
    folder = own.run.path("evaluation")
    (folder / "rl" / "animals.parquet").unlink()
    accuracy.run(own, folder)
    assert asked == [["animals"]]


@pytest.mark.parametrize("task", TASKS)
def test_sets_histograms_and_churn_stand_beside_the_accuracy(tiny: Plan, task: str) -> None:
    outcomes = outcomes_of(tiny, task)
    for name, one in table_of(tiny)[task].items():
        result = TaskResult.load(tiny.run.path("evaluation", name, f"{task}.parquet"))
        assert (one.acc, one.acc_norm) == (result.accuracy_by("acc"), result.accuracy_by("acc_norm"))
        assert sum(one.histogram or ()) == one.n and one.note == "" and one.repeats is None
        if one.sets and one.flips:
            assert sum(one.sets.values()) == one.n
            assert one.sets["critical"] == len(outcomes.critical("base", name)) == one.flips.gained
            assert one.churn == outcomes.churn("base", name)


def test_the_summary_leaves_out_what_a_kind_of_task_or_the_base_does_not_have(tiny: Plan) -> None:
    found = read_json(tiny.run.path("summary.json"))["accuracy"]["colours"]
    tuned = {"gain", "flips", "sets", "churn"}
    assert not tuned & found["base"].keys() and tuned <= found["rl"].keys()
    assert "repeats" not in found["base"] and "repeats" in replace(made_up(0.5), repeats=1).summary()


@pytest.mark.parametrize("task", TASKS)
def test_the_table_of_outcomes_holds_every_item_of_every_model(tiny: Plan, task: str) -> None:
    rows = pq.read_table(tiny.run.path("evaluation", "outcomes", f"{task}.parquet")).to_pylist()
    outcomes = outcomes_of(tiny, task)
    assert Counter(row["model"] for row in rows) == dict.fromkeys(tiny.models, 48)
    for model in tiny.models:
        assert [row["correct"] for row in rows if row["model"] == model] == outcomes[model].tolist()
