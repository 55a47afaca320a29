import random
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_model
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from transformers import AutoModelForCausalLM, TrainerState, get_cosine_schedule_with_warmup

from featdiff.posttraining.state import latest_state, load_generators, load_optimizer, save_state, state_step


def training(base: str) -> tuple[torch.nn.Module, AdamW, LambdaLR]:
    model = AutoModelForCausalLM.from_pretrained(base)
    optimizer = AdamW(model.parameters(), lr=1e-2)
    return model, optimizer, get_cosine_schedule_with_warmup(optimizer, 2, 20)


def steps(model: torch.nn.Module, optimizer: AdamW, schedule: LambdaLR, count: int) -> None:
    for _ in range(count):
        optimizer.zero_grad()
        torch.stack([(weight * torch.randn(weight.shape)).sum() for weight in model.parameters()]).sum().backward()
        optimizer.step()
        schedule.step()


def test_training_from_a_saved_state_equals_training_that_went_on(base: str, tmp_path: Path) -> None:
    model, optimizer, schedule = training(base)
    steps(model, optimizer, schedule, 3)
    save_state(tmp_path / "state-3", model, optimizer, schedule, TrainerState(global_step=3))
    steps(model, optimizer, schedule, 4)

    other, other_optimizer, other_schedule = training(str(base))
    load_model(other, tmp_path / "state-3" / "model.safetensors")
    load_optimizer(tmp_path / "state-3", other_optimizer, other_schedule)
    torch.manual_seed(99)
    load_generators(tmp_path / "state-3")
    steps(other, other_optimizer, other_schedule, 4)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
    assert schedule.get_last_lr() == other_schedule.get_last_lr()


def test_every_generator_goes_on_where_it_was(base: str, tmp_path: Path) -> None:
    random.gauss(0, 1)
    np.random.standard_normal()  # both leave a second number in store
    save_state(tmp_path, *training(base), TrainerState())

    def drawn() -> list[float]:
        return [
            random.gauss(0, 1),
            random.random(),
            np.random.standard_normal(),
            np.random.rand(),
            torch.rand(1).item(),
        ]

    expected = drawn()
    load_generators(tmp_path)
    assert drawn() == expected


def test_a_state_holds_no_pickle(base: str, tmp_path: Path) -> None:
    save_state(tmp_path, *training(base), TrainerState())
    assert {file.suffix for file in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_the_latest_state_has_the_most_steps(tmp_path: Path) -> None:
    assert latest_state(tmp_path) is None and state_step(None) == 0
    for step in (9, 10, 8):
        (tmp_path / f"state-{step}").mkdir()
    assert latest_state(tmp_path) == tmp_path / "state-10" and state_step(tmp_path / "state-10") == 10
