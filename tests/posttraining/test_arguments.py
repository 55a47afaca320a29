from pathlib import Path

import pytest

from featdiff.config.study import SFTSettings
from featdiff.posttraining.arguments import in_order, shared_arguments


def test_every_epoch_holds_each_item_once_in_an_order_of_its_own() -> None:
    order = in_order(range(50), epochs=3, seed=1)
    epochs = [order[start : start + 50] for start in (0, 50, 100)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_the_order_is_the_seeds() -> None:
    assert in_order(range(50), epochs=1, seed=1) == in_order(range(50), epochs=1, seed=1)
    assert in_order(range(50), epochs=1, seed=1) != in_order(range(50), epochs=1, seed=2)


@pytest.mark.parametrize(("epochs", "seen"), [(0.5, 5), (1.0, 10), (1.5, 15), (0.001, 1)])
def test_part_of_an_epoch_is_part_of_the_items(epochs: float, seen: int) -> None:
    assert len(in_order(range(10), epochs=epochs, seed=0)) == seen


def test_micro_batches_are_accumulated_to_a_batch_and_warm_up_is_a_share_of_the_steps() -> None:
    arguments = shared_arguments(
        SFTSettings(micro_batch_size=4, warmup=0.1, schedule="constant"),
        batch_size=32,
        weight_decay=0.0,
        steps=50,
        folder=Path("x"),
        seed=0,
        dtype="bfloat16",
        device="cpu",
        trust_remote_code=False,
    )
    assert (arguments["per_device_train_batch_size"], arguments["gradient_accumulation_steps"]) == (4, 8)
    assert (arguments["warmup_steps"], arguments["lr_scheduler_type"]) == (5, "constant_with_warmup")
    assert arguments["bf16"] and arguments["use_cpu"]
