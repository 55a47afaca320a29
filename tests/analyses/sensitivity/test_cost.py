"""The cost of a sensitivity analysis: that of the studies that its groups are."""

import pytest
from planned import planned, varied

from featdiff.analyses.sensitivity.cost import cost as sensitivity
from featdiff.costs.estimate import Cost, CostInputs
from featdiff.costs.training import cost as train
from featdiff.run.plan import Plan
from featdiff.workflow.estimate_table import priced as stage_costs


@pytest.fixture
def ran(tiny: Plan) -> CostInputs:
    """The tiny study, whose run can be looked at."""
    return planned(tiny.study, items=48)


def with_section(inputs: CostInputs, **settings: object) -> CostInputs:
    return varied(inputs, sensitivity={"strengths": [1.0], "seeds": [], **settings})


def flops(cost: Cost, part: str) -> float:
    return cost.parts[part].flops


def test_what_the_study_has_is_not_trained_again(ran: CostInputs) -> None:
    found = sensitivity(with_section(ran))
    assert found.parts.keys() & {"harvest", "crosscoders", "scores"} == set() and found.stays == 0


def test_a_crosscoder_costs_what_it_costs_alone(ran: CostInputs) -> None:
    lineups = {"joint": {"models": ["base", "sft", "rl"], "sparsity": ran.plan.study.crosscoder.sparsity}}
    alone = varied(ran, crosscoder__lineups=lineups)
    found = sensitivity(with_section(ran, seeds=[1]))
    for part in ("harvest", "crosscoders"):
        assert flops(found, part) == pytest.approx(flops(train(alone), part))
    assert found.stays == train(alone).stays


def test_seeds_share_the_harvest_and_layers_do_not(ran: CostInputs) -> None:
    one, seeds = sensitivity(with_section(ran, seeds=[1])), sensitivity(with_section(ran, seeds=[1, 2]))
    assert flops(seeds, "harvest") == flops(one, "harvest")
    assert flops(seeds, "crosscoders") == pytest.approx(2 * flops(one, "crosscoders"))
    deeper = sensitivity(with_section(ran, seeds=[1], layers=[4]))  # the study's own is 2
    assert flops(deeper, "harvest") == pytest.approx(3 * flops(one, "harvest"), rel=0.15)
    parted = sensitivity(with_section(ran, seeds=[1, 2], together=1))
    assert flops(parted, "harvest") == pytest.approx(2 * flops(one, "harvest"))
    assert parted.passing < seeds.passing  # checkpoints of fewer crosscoders


def test_of_a_choice_three_crosscoders_are_edited_and_of_the_studys_own_all(ran: CostInputs) -> None:
    strengths = [0.25, 0.5, 1.0, 2.0, 4.0]
    one = flops(sensitivity(with_section(ran)), "edits, controls")
    assert flops(sensitivity(with_section(ran, strengths=strengths)), "edits, controls") == pytest.approx(5 * one)
    both = sensitivity(with_section(ran, strengths=strengths, seeds=[1]))
    assert flops(both, "edits, controls") == pytest.approx(8 * one)


def test_it_has_a_row_where_the_study_has_the_section(ran: CostInputs) -> None:
    assert "sensitivity" in [stage.name for stage in stage_costs(with_section(ran)) if stage.cost.total.seconds > 0]
    assert "sensitivity" not in [stage.name for stage in stage_costs(ran)]
