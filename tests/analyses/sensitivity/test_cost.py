"""The cost of a sensitivity analysis: that of the studies that its groups are."""

import pytest
from planned import planned, varied

from featdiff.analyses.sensitivity.cost import cost as sensitivity
from featdiff.costs.estimate import CostInputs
from featdiff.costs.training import cost as train
from featdiff.run.plan import Plan
from featdiff.workflow.estimate_table import priced


@pytest.fixture
def ran(tiny: Plan) -> CostInputs:
    """The tiny study, whose run can be looked at."""
    return planned(tiny.study, items=48)


def with_section(inputs: CostInputs, **settings: object) -> CostInputs:
    return varied(inputs, sensitivity={"strengths": [1.0], "seeds": [], **settings})


def test_what_the_study_has_is_not_trained_again(ran: CostInputs) -> None:
    assert sensitivity(with_section(ran)).stays == 0


def test_a_crosscoder_costs_what_it_costs_alone(ran: CostInputs) -> None:
    lineups = {"joint": {"models": ["base", "sft", "rl"], "sparsity": ran.plan.study.crosscoder.sparsity}}
    alone = train(varied(ran, crosscoder__lineups=lineups))
    found, none = sensitivity(with_section(ran, seeds=[1])), sensitivity(with_section(ran))
    assert found.stays == alone.stays
    assert found.work.flops > none.work.flops + alone.work.flops


def test_seeds_share_the_harvest_and_layers_do_not(ran: CostInputs) -> None:
    together, parted = (sensitivity(with_section(ran, seeds=[1, 2], together=n)) for n in (2, 1))
    assert together.stays == parted.stays and together.work.flops < parted.work.flops
    assert together.passing > parted.passing  # checkpoints of more crosscoders


def test_of_a_choice_three_crosscoders_are_edited_and_of_the_studys_own_all(ran: CostInputs) -> None:
    strengths = [0.25, 0.5, 1.0, 2.0, 4.0]

    def tested(**settings: object) -> float:
        return sensitivity(with_section(ran, **settings)).work.flops

    one, own, both = tested(), tested(strengths=strengths), tested(strengths=strengths, seeds=[1])
    assert own > 5 * one and both - own > 3 * one


def test_it_has_a_row_where_the_study_has_the_section(ran: CostInputs) -> None:
    assert "sensitivity" in priced(with_section(ran)) and "sensitivity" not in priced(ran)
