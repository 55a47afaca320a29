from pathlib import Path

import pytest

pytest.importorskip("trl")

from trl.trainer.sft_config import SFTConfig

from featdiff.config.study import SFTSettings
from featdiff.models.loading import ModelSource
from featdiff.posttraining.arguments import Training, in_order, trainer_config


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


def test_micro_batches_are_accumulated_to_a_batch_and_warm_up_is_a_share_of_the_steps(tmp_path: Path) -> None:
    training = Training(ModelSource("x", "bfloat16"), tmp_path, seed=3, checkpoints=2)
    settings = SFTSettings(micro_batch_size=4, warmup=0.1, schedule="constant")
    config = trainer_config(SFTConfig, training, settings, batch_size=32, weight_decay=0.5, steps=50, packing=False)
    assert (config.per_device_train_batch_size, config.gradient_accumulation_steps) == (4, 8)
    assert (config.warmup_steps, config.lr_scheduler_type) == (5, "constant_with_warmup")
    assert (config.seed, config.weight_decay, config.output_dir) == (3, 0.5, str(tmp_path))
    assert config.bf16 and config.use_cpu
