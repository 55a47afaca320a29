"""What SFT and GRPO ask of the Hugging Face Trainer alike."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, TypeVar

import torch

from featdiff.config.study import GRPOSettings, SFTSettings

Item = TypeVar("Item")


class SharedArguments(TypedDict):
    """Arguments of both trainers, by the Trainer's names."""

    output_dir: str
    seed: int
    num_train_epochs: float
    learning_rate: float
    weight_decay: float
    lr_scheduler_type: str
    warmup_steps: int
    max_grad_norm: float
    per_device_train_batch_size: int
    gradient_accumulation_steps: int
    bf16: bool
    use_cpu: bool
    gradient_checkpointing: bool
    dataloader_pin_memory: bool
    logging_steps: float
    logging_nan_inf_filter: bool
    save_strategy: str
    report_to: str
    disable_tqdm: bool
    trust_remote_code: bool


def shared_arguments(
    settings: SFTSettings | GRPOSettings,
    *,
    batch_size: int,
    weight_decay: float,
    steps: int,
    folder: Path,
    seed: int,
    dtype: str,
    device: str,
    trust_remote_code: bool,
) -> SharedArguments:
    """One pass over data that `in_order` has laid out; a log after every step; nothing saved but by our callback.

    batch_size: sequences per optimizer step, a multiple of the settings' micro_batch_size.
    """
    assert batch_size % settings.micro_batch_size == 0
    return {
        "output_dir": str(folder),
        "seed": seed,
        "num_train_epochs": 1.0,
        "learning_rate": settings.lr,
        "weight_decay": weight_decay,
        "lr_scheduler_type": "constant_with_warmup" if settings.schedule == "constant" else settings.schedule,
        "warmup_steps": round(settings.warmup * steps),
        "max_grad_norm": settings.clip,
        "per_device_train_batch_size": settings.micro_batch_size,
        "gradient_accumulation_steps": batch_size // settings.micro_batch_size,
        "bf16": dtype == "bfloat16",
        "use_cpu": device == "cpu",
        # It trades time for memory, which only models that need a GPU are short of.
        "gradient_checkpointing": device != "cpu",
        "dataloader_pin_memory": device != "cpu",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "trust_remote_code": trust_remote_code,
    }


def in_order(items: Sequence[Item], *, epochs: float, seed: int) -> list[Item]:
    """The items as training meets them: each epoch a new random order, the last cut where `epochs` is no whole number.

    The trainers then make one sequential pass: a run that is taken up again need not recall the order of its epoch.
    """
    generator = torch.Generator().manual_seed(seed)
    wanted = max(1, round(epochs * len(items)))
    order: list[int] = []
    while len(order) < wanted:
        order += torch.randperm(len(items), generator=generator).tolist()
    return [items[index] for index in order[:wanted]]
