"""State of a training run, in safetensors and JSON: weights, optimizer, schedule and random number generators."""

import json
import random
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file, save_model
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import TrainerState

PREFIX = "state-"


def save_state(
    folder: Path, model: nn.Module, optimizer: Optimizer, scheduler: LRScheduler, state: TrainerState
) -> None:
    """Write a state; the Trainer looks for `model.safetensors` and `trainer_state.json` under these names."""
    folder.mkdir(parents=True, exist_ok=True)
    save_model(model, str(folder / "model.safetensors"))
    state.save_to_json(str(folder / "trainer_state.json"))
    content = optimizer.state_dict()
    moments = {f"{i}.{name}": tensor for i, state in content["state"].items() for name, tensor in state.items()}
    save_file({name: tensor.contiguous() for name, tensor in moments.items()}, folder / "optimizer.safetensors")
    settings = {"groups": content["param_groups"], "schedule": scheduler.state_dict()}
    (folder / "optimizer.json").write_text(json.dumps(settings))
    (folder / "generators.json").write_text(json.dumps(_generators()))


def latest_state(folder: Path) -> Path | None:
    """The state with the most steps in a folder."""
    return max(folder.glob(f"{PREFIX}*"), key=state_step, default=None)


def state_step(state: Path | None) -> int:
    """The number of steps done; 0 where there is no state."""
    return int(state.name.removeprefix(PREFIX)) if state is not None else 0


def load_optimizer(folder: Path, optimizer: Optimizer, scheduler: LRScheduler) -> None:
    """Restore the moments of an optimizer and the position of a schedule."""
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in load_file(folder / "optimizer.safetensors").items():
        index, name = key.split(".")
        moments.setdefault(int(index), {})[name] = tensor
    settings = json.loads((folder / "optimizer.json").read_text())
    optimizer.load_state_dict({"state": moments, "param_groups": settings["groups"]})
    scheduler.load_state_dict(settings["schedule"])


def load_generators(folder: Path) -> None:
    """Set the random number generators of Python, NumPy, torch and its GPUs."""
    generators = json.loads((folder / "generators.json").read_text())
    version, words, gauss = generators["python"]
    random.setstate((version, tuple(words), gauss))
    kind, words, position, has_gauss, cached = generators["numpy"]
    np.random.set_state((kind, np.array(words, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(torch.tensor(generators["torch"], dtype=torch.uint8))
    torch.cuda.set_rng_state_all([torch.tensor(words, dtype=torch.uint8) for words in generators["cuda"]])


def _generators() -> dict[str, object]:
    version, words, gauss = random.getstate()
    kind, numbers, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(words), gauss],
        "numpy": [kind, np.asarray(numbers).tolist(), position, has_gauss, cached],
        "torch": torch.get_rng_state().tolist(),
        "cuda": [state.tolist() for state in torch.cuda.get_rng_state_all()],
    }
