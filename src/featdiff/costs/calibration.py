"""`featdiff plan --calibrate`: what this machine does in some seconds, for the estimates of its studies."""

import json
import os
import tempfile
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from featdiff.costs.hardware import Numbers, calibration, calibration_file, kinds
from featdiff.crosscoder import BatchTopK, Crosscoder
from featdiff.crosscoder.step import Learner
from featdiff.models.loading import load_model, load_tokenizer
from featdiff.models.shapes import shape_of

SIDE = 2048
"""Of the matrices that are multiplied."""
LARGE = 1 << 26
"""Bytes of a tensor that no cache holds."""
REQUEST = 2.0
"""Time to build a request of a task over that to tokenise it."""


def calibrate(device: str) -> Path:
    """Measure this machine on `device` (cpu or cuda), write the numbers, and give their file."""
    found = calibration() | {_kind(device): measured(device)}
    file = calibration_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return file


def measured(device: str) -> Numbers:
    """Rates and least times of `device`; those of a CPU that grow with its cores are of one core.

    Of an accelerator the least times alone: peaks and shares stay those of its data sheet.
    """
    base = str(files("featdiff.demo") / "base")
    rate, call = _model(base, device)
    least = {
        "call": call,
        "step": _step(device),
        "load": fastest(lambda: load_model(base, device=device), device),
        "row": _row(base),
        "disk": _disk(),
    }
    if device != "cpu":
        return least
    fp32, large, other = _products(torch.float32), torch.ones(LARGE // 4), torch.empty(LARGE // 4)
    rates = {
        "bf16": _products(torch.bfloat16),
        "fp32": fp32,
        "bandwidth": 2 * LARGE / fastest(lambda: other.copy_(large)),
        "fresh": LARGE / fastest(lambda: torch.relu(large)),
    }
    shares = {"model_share": min(1.0, rate / fp32), "product_share": 1.0, "bandwidth_share": 1.0}
    return {name: rate / torch.get_num_threads() for name, rate in rates.items()} | shares | least


def fastest(work: Callable[[], object], device: str = "cpu", times: int = 5) -> float:
    """Seconds of the fastest of some calls, after one to warm up."""
    found: list[float] = []
    for _ in range(times + 1):
        start = perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        found.append(perf_counter() - start)
    return min(found[1:])


def _products(dtype: torch.dtype) -> float:
    """FLOP/s of a large product."""
    matrix = torch.randn(SIDE, SIDE).to(dtype)
    return 2 * SIDE**3 / fastest(lambda: matrix @ matrix)


@torch.no_grad()
def _model(base: str, device: str) -> tuple[float, float]:
    """FLOP/s of a small model's forward pass, and seconds of one block on one token."""
    model, shape = load_model(base, device=device), shape_of(base)
    rows, positions = 32, 256
    ids = torch.randint(3, shape.vocabulary, (rows, positions), device=device)
    seconds = fastest(lambda: model(ids, use_cache=False), device, times=3)
    one = fastest(lambda: model(ids[:1, :1], use_cache=False), device, times=20)
    return rows * positions * shape.forward(positions) / seconds, one / shape.layers


def _step(device: str) -> float:
    """Seconds of a step of a crosscoder so small that its products take next to nothing."""
    crosscoder = Crosscoder(("base", "tuned"), 64, 64, BatchTopK(k=4)).to(device)
    learner = Learner(crosscoder, lr=1e-3, betas=(0.9, 0.999), clip=1.0)
    batch: Tensor = torch.randn(64, 2, 64, device=device)

    def step() -> None:
        learner.apply(learner.gradients(batch, 1.0), len(batch), 1e-3)

    return fastest(step, device, times=50)


def _row(base: str) -> float:
    """Seconds of a request of a task: a prompt, and the prompt with a choice, are tokenised."""
    tokenizer = load_tokenizer(base)
    prompts = [f"What is {number} + 17? Answer:" for number in range(200)]

    def tokenise() -> None:
        for prompt in prompts:
            tokenizer(prompt)
            tokenizer(f"{prompt} 25")

    return REQUEST * fastest(tokenise) / len(prompts)


def _disk() -> float:
    """Bytes per second of a file that is written to the disk for good."""
    data = bytes(LARGE)

    def write() -> None:
        with tempfile.TemporaryFile() as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    return LARGE / fastest(write, times=2)


def _kind(device: str) -> str:
    """The kind of a device by its name; ValueError for an accelerator without numbers of its data sheet."""
    if device == "cpu":
        return "cpu"
    name = torch.cuda.get_device_name(device).replace(" ", "")
    for kind in kinds():
        if kind in name:
            return kind
    raise ValueError(f"there are no numbers for a {name}; known are {', '.join(kinds())}")
