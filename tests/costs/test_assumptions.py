"""What a study reads is counted where it is on this disk, and assumed where it is not."""

from pathlib import Path

import pytest
from tiny_study import changed, write_posttrained_study

from featdiff.config.study_file import read_study
from featdiff.costs.assumptions import DEMO, Assumptions, assumptions_of, checked
from featdiff.demo import inputs
from featdiff.models.loading import load_tokenizer
from featdiff.run.plan import Plan
from featdiff.workflow.demo import demo_study


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(read_study(write_posttrained_study(tmp_path, prompts=12)))


def test_prompts_are_counted_in_their_file(plan: Plan) -> None:
    assert Assumptions().prompts_of(plan) == 12
    assert Assumptions().prompts_of(Plan(changed(plan.study, posttrain__limit=5))) == 5


def test_prompts_that_are_not_here_are_assumed(plan: Plan) -> None:
    assert Assumptions(prompts=70).prompts_of(Plan(changed(plan.study, posttrain__prompts="gone.jsonl"))) == 70


def test_public_tasks_have_their_number_of_items_and_others_the_assumed_one() -> None:
    assert Assumptions(items=7).items_of("arc_challenge") == 1172
    assert Assumptions(items=7).items_of("mine") == 7


def test_a_negative_number_and_a_share_above_one_are_refused() -> None:
    assert checked(Assumptions(items=30)) == Assumptions(items=30)
    with pytest.raises(ValueError, match=r"--assume\.items -1 is negative"):
        checked(Assumptions(items=-1))
    with pytest.raises(ValueError, match=r"--assume\.right 1\.5 is a share"):
        checked(Assumptions(right=1.5))


def test_the_demos_numbers_are_those_of_its_inputs() -> None:
    assert assumptions_of(read_study(demo_study())) == DEMO
    assert (DEMO.prompts, DEMO.items) == (inputs.N_PROMPTS, inputs.N_EVALUATION)
    tokenizer = load_tokenizer(str(inputs.PACKAGED_BASE))

    def mean(texts: list[str]) -> float:
        return sum(len(tokenizer(text)["input_ids"]) for text in texts) / len(texts)

    evaluation = {family.name: family.distinct_items(0, 20) for family in inputs.FAMILIES}
    items = [item for group in evaluation.values() for item in group]
    training = inputs.training_items(evaluation, 0)[:200]
    assert DEMO.prompt_tokens == pytest.approx(mean([item.prompt for item in training]), rel=0.15)
    assert DEMO.trace_tokens == pytest.approx(
        mean([inputs.teacher_trace(item, item.answer) for item in training]), rel=0.15
    )
    answered = [item.prompt + choice for item in items for choice in item.choices]
    assert DEMO.item_tokens == pytest.approx(mean(answered), rel=0.15)
