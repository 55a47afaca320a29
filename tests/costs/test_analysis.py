"""Evaluation and analysis: FLOPs by hand, files as large as real ones."""

from dataclasses import replace

import pytest
from tiny_study import changed

from featdiff.config.study import TaskSettings
from featdiff.costs.analysis import attribute, dynamics, evaluate, intervene, select, stability, ways
from featdiff.costs.estimate_inputs import Cost, Ground
from featdiff.run.plan import Plan

ITEMS, TASKS, MODELS, LENGTH, CHOICES = 48, 3, 3, 100, 4


def flops(cost: Cost) -> float:
    return sum(work.flops for part in cost.parts.values() for work in part)


def size_of(ground: Ground, folder: str, pattern: str) -> int:
    return sum(file.stat().st_size for file in ground.plan.run.path(folder).rglob(pattern))


def test_every_model_reads_every_choice_of_every_item(ran: Ground) -> None:
    expected = ITEMS * TASKS * MODELS * CHOICES * LENGTH * ran.model.shape.forward(LENGTH)
    assert flops(evaluate(ran)) == pytest.approx(expected)
    limited = replace(ran, plan=Plan(changed(ran.plan.study, evaluation__limit=12)))
    assert flops(evaluate(limited)) == pytest.approx(expected / 4)


def test_ways_cost_in_proportion_to_the_items_that_they_are_tried_on(ran: Ground) -> None:
    def cost(items: int, controls: int) -> float:
        study = changed(ran.plan.study, ways__items=items, ways__controls=controls, intervention__neutral_tokens=0)
        return flops(ways(replace(ran, plan=Plan(study))))

    assert cost(12, 4) == pytest.approx(2 * cost(6, 4))
    assert cost(6, 9) - cost(6, 8) == pytest.approx(cost(6, 8) - cost(6, 7)) and cost(6, 9) > cost(6, 8)


@pytest.mark.parametrize(
    ("stage", "folder"), [(attribute, "attribution"), (dynamics, "dynamics"), (select, "selection")]
)
def test_tensors_of_the_analysis_are_as_large_as_estimated(stage, folder: str, ran: Ground) -> None:
    files = list(ran.plan.run.path(folder).glob("*.safetensors"))
    headers = sum(8 + int.from_bytes(file.read_bytes()[:8], "little") for file in files)
    assert files and size_of(ran, folder, "*.safetensors") - headers == stage(ran).stays


def test_seeds_and_checkpoints_are_matched_two_by_two(ran: Ground) -> None:
    def matching(seeds: list[int]) -> tuple[float, ...]:
        study = changed(ran.plan.study, crosscoder__lineups={}, crosscoder__features=100, crosscoder__seeds=seeds)
        ground = replace(ran, plan=Plan(study))
        return tuple(sum(work.flops for work in stage(ground).parts["matching"]) for stage in (stability, dynamics))

    pair, triple = (2 * 100**2 * models * 32 for models in (2, 3))  # one product of two dictionaries
    # One seed: the two checkpoints of each tuned model with each other, under two alignments.
    assert matching([0]) == (0, 2 * 2 * pair)
    # Two: joint; base with sft and rl; their checkpoints jointly, and one by one.
    assert matching([0, 1]) == (3 * triple + 6 * pair, 2 * (triple + (2 * 6 + 1) * pair))


def test_an_evaluated_item_takes_some_hundred_bytes(ran: Ground) -> None:
    many = replace(ran, assumed=replace(ran.assumed, items=100_000))
    assert evaluate(many).stays == 100_000 * TASKS * MODELS * 150
    # The demo's 12,000 records take 154 bytes each. Files of few items are mostly header.
    assert size_of(ran, "evaluation", "*.parquet") > evaluate(ran).stays


def test_generated_answers_are_paid_by_token_and_repetition(ran: Ground) -> None:
    def price(**options: float) -> float:
        study = ran.plan.study
        math = TaskSettings.model_validate({"name": "aime24", **options})
        evaluation = study.evaluation.model_copy(update={"tasks": (*study.evaluation.tasks, math)})
        return flops(evaluate(replace(ran, plan=Plan(study.model_copy(update={"evaluation": evaluation})))))

    once = price(max_new_tokens=4) - flops(evaluate(ran))
    assert price(max_new_tokens=4, repeats=10, temperature=0.7) - flops(evaluate(ran)) == pytest.approx(10 * once)
    # Thirty items by every model: the prompt once, and four tokens after it.
    shape = ran.model.shape
    per_answer = LENGTH * shape.forward(LENGTH / 2) + 4 * shape.forward(LENGTH + 2)
    assert once == pytest.approx(30 * MODELS * per_answer)


def test_generated_answers_are_written_again_under_every_edit_and_control(ran: Ground) -> None:
    def price(controls: int, repeats: int = 10) -> float:
        study = ran.plan.study
        math = TaskSettings(name="aime24", repeats=repeats, temperature=0.7, max_new_tokens=4)
        evaluation = study.evaluation.model_copy(update={"tasks": (*study.evaluation.tasks, math)})
        intervention = study.intervention.model_copy(update={"generated_controls": controls})
        changes = {"evaluation": evaluation, "intervention": intervention}
        return flops(intervene(replace(ran, plan=Plan(study.model_copy(update=changes)))))

    assert price(0) == flops(intervene(ran)), "no controls, no edits"
    # Three edits, ten answers to thirty items: one model writes four tokens, the two others follow it up to the tap.
    shape, answers = ran.model.shape, 3 * 30 * 10
    written = LENGTH * shape.forward(LENGTH / 2) + 4 * shape.forward(LENGTH + 2)
    beside = (MODELS - 1) * (LENGTH + 4) * shape.forward(LENGTH + 4, layers=2, head=False)
    assert price(2) - price(1) == pytest.approx(answers * (written + beside))
    assert price(2, repeats=20) - price(0) == pytest.approx(2 * (price(2) - price(0)))


def test_a_limit_of_one_task_makes_it_cheaper(ran: Ground) -> None:
    tasks = ran.plan.study.evaluation.tasks
    few = tasks[0].model_copy(update={"limit": ITEMS // 2})
    evaluation = ran.plan.study.evaluation.model_copy(update={"tasks": (few, *tasks[1:])})
    limited = replace(ran, plan=Plan(ran.plan.study.model_copy(update={"evaluation": evaluation})))
    assert flops(evaluate(limited)) == pytest.approx(flops(evaluate(ran)) * (TASKS - 0.5) / TASKS)


def test_an_intervention_runs_above_the_tap_once_for_every_edit(ran: Ground) -> None:
    def edits(controls: int) -> float:
        study = changed(ran.plan.study, intervention__controls=controls)
        return intervene(replace(ran, plan=Plan(study))).parts["edits, controls"][0].flops

    # Three edits; of two tasks an eighth of the items again (a quarter critical, half of those held out).
    items = 3 * ITEMS * (TASKS + 2 / 8)
    above = ran.model.shape.forward(LENGTH, layers=2, head=False)
    assert edits(101) - edits(100) == pytest.approx(6 * items * LENGTH * above)  # six kinds of control
    doses = 2 * ITEMS * TASKS * 2 * (1 + 2)  # two models, two doses of the chosen and of two other sets
    assert edits(100) == pytest.approx(((6 * 100 + 1 + CHOICES) * items + doses) * LENGTH * above)


def test_fewer_items_make_an_intervention_cheaper(ran: Ground) -> None:
    few = replace(ran, plan=Plan(changed(ran.plan.study, intervention__items=12)))
    assert flops(intervene(few)) == pytest.approx(flops(intervene(ran)) / 4)


def test_unseen_tasks_take_no_part_in_the_selection(ran: Ground) -> None:
    joint = ran.plan.crosscoders[ran.plan.joint]
    prompts = ITEMS * 2
    read = MODELS * prompts * LENGTH * ran.model.shape.forward(LENGTH, layers=2, head=False)
    assert flops(select(ran)) == pytest.approx(read + 4 * 3 * prompts * joint.features * MODELS * 32)
