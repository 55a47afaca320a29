"""`featdiff plan --calibrate`: what this machine does in some seconds, for the estimates of its studies."""

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from time import perf_counter

import torch

from featdiff.costs.hardware import Numbers, calibration, calibration_file, kinds
from featdiff.models.loading import load_model
from featdiff.models.shapes import shape_of

SIDE, LARGE = 2048, 1 << 26  # side of the matrices that are multiplied, and bytes of a tensor that no cache holds


def calibrate(device: str) -> Path:
    """Measure this machine on `device` (cpu, or cuda of a known kind), write the numbers, and give their file."""
    name = "cpu" if device == "cpu" else torch.cuda.get_device_name(device).replace(" ", "")
    kind = next((kind for kind in kinds() if kind in name), None)
    if kind is None:
        raise ValueError(f"there are no numbers for a {name}; known are {', '.join(kinds())}")
    found, file = calibration() | {kind: measured(device)}, calibration_file()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return file


@torch.no_grad()
def measured(device: str) -> Numbers:
    """Seconds of a call; on a CPU also its rates, of one core, and the share of them that a small model reaches."""
    base = str(files("featdiff.demo") / "base")
    model, shape, positions = load_model(base, device=device), shape_of(base), 256
    ids = torch.randint(3, shape.vocabulary, (32, positions), device=device)
    call = fastest(lambda: model(ids[:1, :1], use_cache=False), device, times=20) / shape.layers
    if device != "cpu":
        return {"call": call}
    rate = ids.numel() * shape.forward(positions) / fastest(lambda: model(ids, use_cache=False))
    fp32, large, other = _products(torch.float32), torch.ones(LARGE // 4), torch.empty(LARGE // 4)
    copied = 2 * LARGE / fastest(lambda: other.copy_(large))
    rates = {"bf16": _products(torch.bfloat16), "fp32": fp32, "bandwidth": copied}
    per_core = {name: number / torch.get_num_threads() for name, number in rates.items()}
    return per_core | {"model_share": min(1.0, rate / fp32), "call": call}


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
