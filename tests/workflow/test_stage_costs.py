"""Every stage of a study has its estimate, and more devices make training faster."""

from planned import paper, planned

from featdiff.run.plan import Plan
from featdiff.workflow.estimate_table import StageCost
from featdiff.workflow.estimate_table import priced as stage_costs
from featdiff.workflow.registry import stages_of


def test_the_stages_are_those_of_the_study_in_its_order() -> None:
    found = stage_costs(paper())
    assert [one.name for one in found] == [stage.name for stage in stages_of(paper().plan)]
    for one in found:
        assert one.cost.passing >= 0 <= one.cost.stays
        assert (
            (one.cost.total.flops > 0)
            == (one.cost.total.seconds > 0)
            == (one.cost.peak > 0)
            == (one.name not in ("inputs", "report"))
        )


def test_parts_sum_to_the_stage() -> None:
    (train,) = (one.cost for one in stage_costs(paper()) if one.name == "train")
    assert list(train.parts) == ["harvest", "crosscoders", "fit on held-out text"]
    assert train.total.seconds == sum(part.seconds for part in train.parts.values())
    assert train.peak == sum(train.memory.values()) > train.memory["libraries"] > 0


def test_more_devices_speed_up_training_alone() -> None:
    def on_four(shards: int) -> list[StageCost]:
        return stage_costs(paper(gpus=4, training__feature_shards=shards))

    one, by_features, by_tokens = stage_costs(paper()), on_four(4), on_four(1)
    seconds = [{stage.name: stage.cost.total.seconds for stage in found} for found in (one, by_features)]
    ratios = {name: seconds[0][name] / seconds[1][name] for name in seconds[0] if seconds[0][name]}
    assert 3 < ratios.pop("train") < 4 and set(ratios.values()) == {1.0}
    assert [stage.cost.total.flops for stage in one] == [stage.cost.total.flops for stage in by_features]
    # Gradients of the whole dictionary are longer than the reconstructions of a batch.
    parts = [{stage.name: stage.cost for stage in found}["train"].parts for found in (by_features, by_tokens)]
    assert parts[0]["harvest"] == parts[1]["harvest"]
    assert parts[0]["crosscoders"].seconds < parts[1]["crosscoders"].seconds / 2


def test_a_study_of_given_models_has_no_post_training(tiny: Plan) -> None:
    assert tiny.study.posttrain is None
    assert [one.name for one in stage_costs(planned(tiny.study))][:2] == ["evaluate", "train"]
