"""Where each path of a step pays on a CUDA GPU, at the paper's shape: 3 models, d_model 2,560, 32,768 features.

    python benchmarks/gpu_borders.py

screened     a bfloat16 screen, then float32 products of active pairs
compact      a float32 product over all features, then those of active pairs
dense        five float32 products; it does not depend on how many are active

One after another, from the same state next to the truth of a sparse mixture, with b_enc set for so many active
features; the learning rate is so small that they stay active. The borders in
`featdiff.crosscoder.kernels.borders` come from here.
"""

import argparse
import statistics
import sys
import time
from itertools import cycle

import torch
from data import mixture
from own import start_near_the_truth
from task import BETAS, CLIP, L1, Shape
from torch import Tensor

from featdiff.crosscoder.kernels.borders import Path
from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.sparsity import ReLU
from featdiff.crosscoder.step import Learner

PATHS: tuple[Path, ...] = ("screened", "compact", "dense")
LR = 1e-6


def timed(
    path: Path, shape: Shape, rows: Tensor, batches: list[Tensor], l0: float, rounds: int, steps: int
) -> tuple[float, list[float]]:
    """Share of active pairs in the last step, and seconds of a step in every round."""
    names = tuple(f"model{number}" for number in range(shape.models))
    crosscoder = Crosscoder(names, shape.d_model, shape.features, ReLU(weight=L1)).to(rows.device)
    start_near_the_truth(crosscoder, rows, batches[0], l0)
    learner = Learner(crosscoder, lr=LR, betas=BETAS, clip=CLIP, path=path)
    order, share, seconds = cycle(batches), 0.0, []
    for _ in range(rounds + 1):  # the first is not counted: programs are compiled
        start = time.perf_counter()
        for _ in range(steps):
            batch = next(order)
            found = learner.gradients(batch, 1.0)
            float(found.reconstruction)
            learner.apply(found, len(batch), LR)
            share = found.active / (len(batch) * shape.features)
        if rows.is_cuda:
            torch.cuda.synchronize()
        seconds.append((time.perf_counter() - start) / steps)
    return share, seconds[1:]


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--l0", type=float, nargs="+", default=[100, 328, 983, 2621, 5243], help="features per token")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="steps in each round")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("gpu_borders.py: torch finds no CUDA GPU; run it on a machine that has one", file=sys.stderr)
        sys.exit(2)
    shape = Shape(models=3, d_model=2560, features=32_768, tokens=1024)
    true, drawn = mixture(shape, arguments.l0[0], 2)
    rows, batches = true.to("cuda"), [batch.to("cuda") for batch in drawn]
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}\n")
    print("| path | L0 | active share | ms per step | fastest | slowest |\n|---|--:|--:|--:|--:|--:|")
    for l0 in arguments.l0:
        for path in PATHS:
            share, seconds = timed(path, shape, rows, batches, l0, arguments.rounds, arguments.steps)
            times = [1000 * each for each in (statistics.median(seconds), min(seconds), max(seconds))]
            print(f"| {path} | {l0:g} | {share:.2%} | {' | '.join(f'{each:.2f}' for each in times)} |", flush=True)
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
