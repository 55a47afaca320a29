"""The cost of a sensitivity analysis: that of the studies that its groups are."""

from dataclasses import asdict, replace

import pytest
from tiny_study import changed

from featdiff.costs.analysis import attribute
from featdiff.costs.crosscoders import train
from featdiff.costs.estimate_inputs import Cost, Ground
from featdiff.costs.sensitivity import sensitivity
from featdiff.costs.stages import estimate
from featdiff.run.plan import Plan


def varied(ground: Ground, **settings: object) -> Ground:
    analysis = {"strengths": [1.0], "seeds": [], **settings}
    return replace(ground, plan=Plan(changed(ground.plan.study, sensitivity=analysis)))


def flops(cost: Cost, part: str) -> float:
    return sum(work.flops for work in cost.parts[part])


def test_what_the_study_has_is_not_trained_again(ran: Ground) -> None:
    found = sensitivity(varied(ran))
    assert found.parts.keys() & {"harvest", "crosscoders", "scores"} == set() and found.stays == 0


def test_a_crosscoder_costs_what_it_costs_alone(ran: Ground) -> None:
    lineups = {"joint": {"models": ["base", "sft", "rl"], "sparsity": asdict(ran.plan.study.crosscoder.sparsity)}}
    alone = replace(ran, plan=Plan(changed(ran.plan.study, crosscoder__lineups=lineups)))
    found = sensitivity(varied(ran, seeds=[1]))
    for part in ("harvest", "crosscoders"):
        assert flops(found, part) == pytest.approx(flops(train(alone), part))
    assert found.stays == pytest.approx(train(alone).stays + attribute(alone).stays)


def test_seeds_share_the_harvest_and_layers_do_not(ran: Ground) -> None:
    one, seeds = sensitivity(varied(ran, seeds=[1])), sensitivity(varied(ran, seeds=[1, 2]))
    assert flops(seeds, "harvest") == flops(one, "harvest")
    assert flops(seeds, "crosscoders") == pytest.approx(2 * flops(one, "crosscoders"))
    deeper = sensitivity(varied(ran, seeds=[1], layers=[4]))  # the study's own is 2
    assert flops(deeper, "harvest") == pytest.approx(3 * flops(one, "harvest"), rel=0.15)
    parted = sensitivity(varied(ran, seeds=[1, 2], together=1))
    assert flops(parted, "harvest") == pytest.approx(2 * flops(one, "harvest"))
    assert parted.passing < seeds.passing  # checkpoints of fewer crosscoders


def test_of_a_choice_three_crosscoders_are_edited_and_of_the_studys_own_all(ran: Ground) -> None:
    strengths = [0.25, 0.5, 1.0, 2.0, 4.0]
    one = flops(sensitivity(varied(ran)), "edits, controls")
    assert flops(sensitivity(varied(ran, strengths=strengths)), "edits, controls") == pytest.approx(5 * one)
    both = sensitivity(varied(ran, strengths=strengths, seeds=[1]))
    assert flops(both, "edits, controls") == pytest.approx(8 * one)


def test_it_has_a_row_where_the_study_has_the_section(ran: Ground) -> None:
    assert "sensitivity" in [stage.name for stage in estimate(varied(ran)) if stage.seconds > 0]
    assert "sensitivity" not in [stage.name for stage in estimate(ran)]
