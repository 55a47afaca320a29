"""Evaluation and analyses: FLOPs by hand, and what a larger study costs is more."""

from dataclasses import replace

import pytest
from planned import planned, varied

from featdiff.analyses.accuracy.cost import cost as evaluate
from featdiff.analyses.dynamics.cost import cost as dynamics
from featdiff.analyses.editing_methods.cost import cost as ways
from featdiff.analyses.intervention.cost import cost as intervene
from featdiff.analyses.quality.cost import cost as quality
from featdiff.analyses.selection.cost import cost as select
from featdiff.analyses.stability.cost import cost as stability
from featdiff.config.study import TaskSettings
from featdiff.costs.estimate import Cost, CostInputs
from featdiff.run.plan import Plan

ITEMS, TASKS, MODELS, LENGTH, CHOICES = 48, 3, 3, 100, 4


@pytest.fixture
def ran(tiny: Plan) -> CostInputs:
    """The tiny study, whose run can be looked at."""
    return planned(tiny.study, items=ITEMS)


def flops(cost: Cost) -> float:
    return cost.work.flops


def test_every_model_reads_every_choice_of_every_item(ran: CostInputs) -> None:
    expected = ITEMS * TASKS * MODELS * CHOICES * LENGTH * ran.shape.forward(LENGTH)
    assert flops(evaluate(ran)) == pytest.approx(expected)
    assert flops(evaluate(varied(ran, evaluation__limit=12))) == pytest.approx(expected / 4)


def test_an_evaluated_item_takes_some_hundred_bytes(ran: CostInputs) -> None:
    many = replace(ran, assumed=replace(ran.assumed, items=100_000))
    assert evaluate(many).stays == 100_000 * TASKS * MODELS * 150
    # The demo's 12,000 records take 154 bytes each. Files of few items are mostly header.
    files = ran.plan.run.path("evaluation").rglob("*.parquet")
    assert sum(file.stat().st_size for file in files) > evaluate(ran).stays


def with_math(inputs: CostInputs, controls: float | None = None, **options: float) -> CostInputs:
    """The study with a task of thirty generated answers beside its own."""
    study = inputs.plan.study
    math = TaskSettings.model_validate({"name": "aime24", **options})
    evaluation = study.evaluation.model_copy(update={"tasks": (*study.evaluation.tasks, math)})
    drawn = {} if controls is None else {"generated_controls": controls}
    changes = {"evaluation": evaluation, "intervention": study.intervention.model_copy(update=drawn)}
    return replace(inputs, plan=Plan(study.model_copy(update=changes)))


def test_generated_answers_are_paid_by_token_and_repetition(ran: CostInputs) -> None:
    def price(**options: float) -> float:
        return flops(evaluate(with_math(ran, **options))) - flops(evaluate(ran))

    once, shape = price(max_new_tokens=4), ran.shape
    assert price(max_new_tokens=4, repeats=10, temperature=0.7) == pytest.approx(10 * once)
    # Thirty items by every model: the prompt once, and four tokens after it.
    assert once == pytest.approx(30 * MODELS * (LENGTH * shape.forward(LENGTH / 2) + 4 * shape.forward(LENGTH + 2)))


def test_generated_answers_are_written_again_under_every_edit_and_control(ran: CostInputs) -> None:
    def price(controls: int, repeats: int = 10) -> float:
        return flops(intervene(with_math(ran, controls, repeats=repeats, temperature=0.7, max_new_tokens=4)))

    assert price(0) == flops(intervene(ran)), "no controls, no edits"
    # Three edits, ten answers to thirty items: one model writes four tokens, the two others follow it up to the tap.
    shape, answers = ran.shape, 3 * 30 * 10
    written = LENGTH * shape.forward(LENGTH / 2) + 4 * shape.forward(LENGTH + 2)
    others = (MODELS - 1) * (LENGTH + 4) * shape.forward(LENGTH + 4, layers=2, head=False)
    assert price(2) - price(1) == pytest.approx(answers * (written + others))
    assert price(2, repeats=20) - price(0) == pytest.approx(2 * (price(2) - price(0)))


def test_a_limit_of_one_task_makes_it_cheaper(ran: CostInputs) -> None:
    tasks = ran.plan.study.evaluation.tasks
    few = tasks[0].model_copy(update={"limit": ITEMS // 2})
    evaluation = ran.plan.study.evaluation.model_copy(update={"tasks": (few, *tasks[1:])})
    limited = replace(ran, plan=Plan(ran.plan.study.model_copy(update={"evaluation": evaluation})))
    assert flops(evaluate(limited)) == pytest.approx(flops(evaluate(ran)) * (TASKS - 0.5) / TASKS)


def test_ways_cost_in_proportion_to_the_items_that_they_are_tried_on(ran: CostInputs) -> None:
    def cost(items: int, controls: int) -> float:
        return flops(ways(varied(ran, ways__items=items, ways__controls=controls)))

    assert cost(12, 4) == pytest.approx(2 * cost(6, 4))
    assert cost(6, 9) - cost(6, 8) == pytest.approx(cost(6, 8) - cost(6, 7)) and cost(6, 9) > cost(6, 8)


def test_quality_reads_the_prompts_and_runs_each_crosscoders_models_to_the_end(ran: CostInputs) -> None:
    tokens = 3 * ITEMS * LENGTH
    read = 3 * tokens * ran.shape.forward(64, layers=2, head=False)
    spliced = (3 + 2) * 3 * tokens * ran.shape.forward(64, layers=2)
    coded = 4 * tokens * 64 * 32 * (3 + 2)
    assert flops(quality(ran)) == pytest.approx(read + spliced + coded)


def test_further_seeds_are_matched_with_the_first(ran: CostInputs) -> None:
    def matched(seeds: list[int]) -> float:
        return flops(stability(varied(ran, crosscoder__lineups={}, crosscoder__features=100, crosscoder__seeds=seeds)))

    pair, triple = (2 * 100**2 * models * 32 for models in (2, 3))  # one product of two dictionaries
    # Two: joint; base with sft and rl; their checkpoints jointly, and one by one.
    assert matched([0]) == 0 and matched([0, 1]) == 3 * triple + 6 * pair


def test_an_intervention_runs_above_the_tap_once_for_every_edit(ran: CostInputs) -> None:
    def edits(controls: int, **settings: object) -> float:
        return flops(intervene(varied(ran, intervention__controls=controls, **settings)))

    above = ran.shape.forward(LENGTH, layers=2, head=False)
    # Three edits, six kinds of control.
    assert edits(101) - edits(100) == pytest.approx(3 * 6 * ITEMS * TASKS * LENGTH * above)
    assert edits(100, intervention__items=12) == pytest.approx(edits(100) / 4)


def test_unseen_tasks_take_no_part_in_the_selection(ran: CostInputs) -> None:
    assert flops(select(ran)) == pytest.approx(
        MODELS * ITEMS * 2 * LENGTH * ran.shape.forward(LENGTH, layers=2, head=False)
    )


def test_every_checkpoint_is_read_in_the_place_of_the_tuned_model(ran: CostInputs) -> None:
    assert flops(dynamics(ran)) > flops(dynamics(varied(ran, dynamics__alignments=["joint"]))) == 0
