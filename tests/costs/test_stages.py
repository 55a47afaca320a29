"""Every stage of a study has its estimate, and what a larger study costs is more."""

from dataclasses import replace

from tiny_study import changed

from featdiff.costs.estimate_inputs import Ground
from featdiff.costs.stages import StageEstimate, estimate
from featdiff.run.plan import Plan
from featdiff.workflow.registry import stages_of

CHEAP = {"report"}


def test_the_stages_are_those_of_the_study_in_its_order(paper: Ground) -> None:
    found = estimate(paper)
    assert [one.name for one in found] == [stage.name for stage in stages_of(paper.plan)]
    for one in found:
        assert one.at_most >= one.stays >= 0
        assert (one.flops > 0) == (one.seconds > 0) == (one.peak > 0) == (one.name not in CHEAP)


def test_parts_sum_to_the_stage(paper: Ground) -> None:
    (train,) = (one for one in estimate(paper) if one.name == "train")
    assert list(train.parts) == ["harvest", "crosscoders", "fit on held-out text"]
    assert train.seconds == sum(part.seconds for part in train.parts.values())
    assert train.peak == sum(train.memory.values())


def test_more_devices_speed_up_training_alone(paper: Ground) -> None:
    def on_four(shards: int) -> list[StageEstimate]:
        study = changed(paper.plan.study, training__feature_shards=shards)
        return estimate(replace(paper, plan=Plan(study), hardware=replace(paper.hardware, devices=4)))

    one, by_features, by_tokens = estimate(paper), on_four(4), on_four(1)
    ratios = {a.name: a.seconds / b.seconds for a, b in zip(one, by_features, strict=True) if a.seconds}
    assert 3.8 < ratios.pop("train") < 4 and set(ratios.values()) == {1.0}
    assert [stage.flops for stage in one] == [stage.flops for stage in by_features]
    # Gradients of the whole dictionary are longer than the reconstructions of a batch.
    seconds = [{stage.name: stage for stage in found}["train"].parts for found in (by_features, by_tokens)]
    assert seconds[0]["harvest"] == seconds[1]["harvest"]
    assert seconds[0]["crosscoders"].seconds < seconds[1]["crosscoders"].seconds / 5


def test_a_study_of_given_models_has_no_post_training(ran: Ground) -> None:
    assert ran.plan.study.posttrain is None
    names = [one.name for one in estimate(ran)]
    assert names[:2] == ["evaluate", "train"] and isinstance(ran.plan, Plan)
