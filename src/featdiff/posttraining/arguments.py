"""Inputs of a training run of either paradigm: base, folder and seed, order of items, arguments of the Trainer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.sft_config import SFTConfig

from featdiff.config.study import GRPOSettings, SFTSettings
from featdiff.models.loading import ModelSource

Item = TypeVar("Item")
Config = TypeVar("Config", SFTConfig, GRPOConfig)


@dataclass(frozen=True)
class Training:
    """Inputs that runs of SFT and GRPO share, besides data and settings."""

    base: ModelSource
    folder: Path
    """Where the checkpoints go."""
    seed: int
    checkpoints: int
    """How many are published, at equal parts of the run."""
    state_minutes: float = 10.0
    """Time between two states from which a killed run can go on."""


def trainer_config(
    kind: type[Config],
    training: Training,
    settings: SFTSettings | GRPOSettings,
    *,
    batch_size: int,
    weight_decay: float,
    steps: int,
    **own: Any,
) -> Config:
    """Make the arguments of a Trainer: one pass over data that `in_order` has laid out, a log after every step.

    Nothing is saved but by `Checkpoints`.

    batch_size: sequences per optimizer step, a multiple of the settings' micro_batch_size.
    steps: optimizer steps of the whole run.
    own: arguments of one paradigm, by TRL's names.
    """
    assert batch_size % settings.micro_batch_size == 0
    base = training.base
    return kind(
        output_dir=str(training.folder),
        seed=training.seed,
        num_train_epochs=1.0,
        learning_rate=settings.lr,
        weight_decay=weight_decay,
        lr_scheduler_type="constant_with_warmup" if settings.schedule == "constant" else settings.schedule,
        warmup_steps=round(settings.warmup * steps),
        max_grad_norm=settings.clip,
        per_device_train_batch_size=settings.micro_batch_size,
        gradient_accumulation_steps=batch_size // settings.micro_batch_size,
        bf16=base.dtype == "bfloat16",
        use_cpu=base.device == "cpu",
        # It trades time for memory, which only models that need a GPU are short of.
        gradient_checkpointing=base.device != "cpu",
        dataloader_pin_memory=base.device != "cpu",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        trust_remote_code=base.trust_remote_code,
        **own,
    )


def in_order(items: Sequence[Item], *, epochs: float, seed: int) -> list[Item]:
    """Lay out the items for training: each epoch in a new random order, the last cut where `epochs` is no integer.

    The trainers then make one sequential pass: a run that is taken up again need not recall the order of its epoch.
    """
    generator = torch.Generator().manual_seed(seed)
    wanted = max(1, round(epochs * len(items)))
    order: list[int] = []
    while len(order) < wanted:
        order += torch.randperm(len(items), generator=generator).tolist()
    return [items[index] for index in order[:wanted]]
