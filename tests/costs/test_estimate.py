"""Primitives of an estimate: each piece of work is bound by one thing, and costs follow from sizes."""

from dataclasses import replace

import pytest
from planned import paper, planned, varied

from featdiff.costs.estimate import LOAD, Work
from featdiff.costs.hardware import Hardware
from featdiff.models.logits import AT_ONCE, LOGIT_BYTES
from featdiff.run.plan import Plan

SLOW = Hardware(
    "x",
    2,
    bf16=100.0,
    fp32=10.0,
    bandwidth=20.0,
    memory=1.0,
    link=5.0,
    model_share=0.4,
    product_share=0.5,
    call=0.5,
    disk=100.0,
)


def test_work_takes_as_long_as_what_binds_it() -> None:
    slow = replace(paper(), hardware=SLOW)
    assert slow.work(8.0, moved=9.0).seconds == 8 / (0.4 * 10)
    assert slow.work(8.0, moved=90.0).seconds == pytest.approx(90 / (0.9 * 20))
    assert slow.work(8.0, moved=9.0, sent=30.0).seconds == pytest.approx(30 / (0.9 * 5))
    assert slow.work(8.0, moved=9.0, calls=7).seconds == 7 * 0.5
    assert slow.products(8.0, bf16=True).seconds == 8 / (0.5 * 100)


def test_a_model_takes_its_time_however_small_it_is() -> None:
    assert replace(paper(), hardware=SLOW).loading(2, weights=50.0).seconds == 2 * (LOAD + 0.5)


def test_parts_add_up_and_devices_divide_their_time() -> None:
    assert Work(3.0, 2.0) + Work(1.0, 1.0) == Work(4.0, 3.0)
    assert Work(8.0, 4.0).shared(4) == Work(8.0, 1.0)


def test_sampling_reads_all_weights_once_for_every_token_of_a_batch(tiny: Plan) -> None:
    inputs = planned(tiny.study)
    shape, hardware = inputs.shape, replace(inputs.hardware, bf16=1e30, fp32=1e30, call=1e-30)
    found = replace(inputs, hardware=hardware).sampling(8, batch=4, prompt=10, length=6)
    moved = 12 * (4 * shape.parameters + 4 * 13 * shape.cached_values * 4)
    assert found.seconds == pytest.approx(moved / (0.9 * hardware.bandwidth))
    called = replace(inputs, hardware=replace(hardware, call=1e3))
    assert called.sampling(8, 4, 10, 6).seconds == 12 * shape.layers * 1e3


def test_logits_are_held_of_as_many_rows_as_are_spliced_at_a_time() -> None:
    inputs, vocabulary = paper(), paper().shape.vocabulary
    assert inputs.spliced_at_once(16 * 1024, 1024) == 1024
    assert AT_ONCE / 2 < LOGIT_BYTES * vocabulary * inputs.spliced_at_once(16 * 1024, 16) <= AT_ONCE
    assert inputs.reading_memory((), (), 16, logits=3 * 16)["logits"] == LOGIT_BYTES * vocabulary * 16


def test_devices_share_features_or_tokens_and_turns_save_memory() -> None:
    one, two = paper().while_training(), paper(gpus=2, training__feature_shards=2).while_training()
    state = "crosscoders, gradients, moments"
    assert two[state] == pytest.approx(one[state] / 2, rel=1e-4)
    tokens = paper(gpus=2).while_training()
    assert tokens[state] == one[state] and tokens["a step"] == one["a step"] / 2
    models = len(paper().plan.harvested) - 2  # the last checkpoint of each paradigm is the tuned model
    assert varied(paper(), lineup__turns=True).while_training()["models up to the tap"] == pytest.approx(
        one["models up to the tap"] / models
    )
    elsewhere = paper(lineup__devices={"rl-1": "cuda:1", "rl-2": "cuda:2"}).while_training()
    assert elsewhere["models up to the tap"] == one["models up to the tap"] * (models - 2) / models
