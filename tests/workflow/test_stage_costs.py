"""Every stage of a study has its estimate, and more devices make training faster."""

import pytest
from planned import paper, planned

from featdiff.costs.estimate import Cost
from featdiff.run.plan import Plan
from featdiff.workflow.estimate_table import priced
from featdiff.workflow.registry import stages_of


def test_the_stages_are_those_of_the_study_in_its_order() -> None:
    found = priced(paper())
    assert list(found) == [stage.name for stage in stages_of(paper().plan)]
    for name, cost in found.items():
        assert cost.passing >= 0 <= cost.stays
        computed = name not in ("inputs", "report")
        assert (cost.work.flops > 0) == (cost.work.seconds > 0) == (cost.peak > 0) == computed


def test_more_devices_speed_up_training_alone() -> None:
    def on_four(shards: int) -> dict[str, Cost]:
        return priced(paper(gpus=4, training__feature_shards=shards))

    one, by_features, by_tokens = priced(paper()), on_four(4), on_four(1)
    ratios = {
        name: cost.work.seconds / by_features[name].work.seconds for name, cost in one.items() if cost.work.seconds
    }
    assert 2 < ratios.pop("train") < 4 and set(ratios.values()) == {1.0}
    assert sum(cost.work.flops for cost in one.values()) == pytest.approx(
        sum(cost.work.flops for cost in by_features.values())
    )
    # Gradients of the whole dictionary are longer than the reconstructions of a batch.
    assert by_features["train"].work.seconds < by_tokens["train"].work.seconds


def test_a_study_of_given_models_has_no_post_training(tiny: Plan) -> None:
    assert tiny.study.posttrain is None
    assert list(priced(planned(tiny.study)))[:2] == ["evaluate", "train"]
