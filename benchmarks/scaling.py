"""How the cost of featdiff's training step grows with features, models, active features and tokens.

    python benchmarks/scaling.py

From one base point, one quantity at a time is varied. Each point is measured by every path of the step, which take
turns; medians count. Writes docs/scaling.json and draws docs/scaling.svg from it.
"""

import argparse
import json
import os
import shlex
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import cycle
from pathlib import Path

import torch
from data import mixture
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter
from own import PATHS, start_near_the_truth
from records import machine
from task import BETAS, CLIP, L1, LR, Shape
from torch import Tensor

from featdiff.crosscoder.matmul import fast_products_are_exact, float32_products
from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.sparsity import ReLU
from featdiff.crosscoder.step import Learner
from featdiff.presentation.style import BLUE, LINE, MUTED, ORANGE, WIDTH, draw, styled

DOCS = Path(__file__).parent.parent / "docs"
BATCHES = 3
WARM_UP = 2
ROUNDS = 5


@dataclass(frozen=True)
class Point:
    """One setting at which a step is measured."""

    shape: Shape
    l0: float


@dataclass(frozen=True)
class Sweep:
    """One quantity, and the points at which it takes its values."""

    quantity: str
    values: tuple[int, ...]
    points: tuple[Point, ...]


BASE = Point(Shape(models=2, d_model=256, features=8192, tokens=1024), 50)
SHOWN = ("dense", "compact", "sparse")
MARKS = {"dense": (MUTED, "s"), "compact": (BLUE, "^"), "sparse": (ORANGE, "o")}


def sweeps() -> list[Sweep]:
    """What is varied, from the base point."""

    def shaped(quantity: str, field: str, values: Sequence[int]) -> Sweep:
        points = [replace(BASE, shape=replace(BASE.shape, **{field: value})) for value in values]
        return Sweep(quantity, tuple(values), tuple(points))

    active = (8, 16, 32, 64, 128, 256, 512, 1024)
    return [
        shaped("features", "features", (1024, 2048, 4096, 8192, 16384, 32768)),
        shaped("models", "models", (1, 2, 3, 5, 8, 11)),
        Sweep("active features per token", active, tuple(replace(BASE, l0=value) for value in active)),
        shaped("tokens per batch", "tokens", (256, 512, 1024, 2048, 4096, 8192)),
    ]


def seconds_per_step(point: Point, rounds: int = ROUNDS) -> dict[str, float]:
    """Median seconds of a step by each path at one point; the data are those of the base point's L0."""
    rows, batches = mixture(point.shape, BASE.l0, BATCHES)
    pool = list(batches)
    steps = {path: _steps(_learner(path, point, rows, pool[0]), cycle(pool)) for path in SHOWN}
    for taken in steps.values():
        for _ in range(WARM_UP):
            next(taken)
    times = [{path: next(taken) for path, taken in steps.items()} for _ in range(rounds)]
    return {path: statistics.median(found[path] for found in times) for path in SHOWN}


def _learner(path: str, point: Point, rows: Tensor, batch: Tensor) -> Learner:
    names = tuple(f"model{number}" for number in range(point.shape.models))
    crosscoder = Crosscoder(names, point.shape.d_model, point.shape.features, ReLU(weight=L1))
    start_near_the_truth(crosscoder, rows, batch, point.l0)
    return Learner(crosscoder, lr=LR, betas=BETAS, clip=CLIP, path=PATHS[path], threads=torch.get_num_threads())


def _steps(learner: Learner, batches: Iterator[Tensor]) -> Iterator[float]:
    """Take training steps, and say how many seconds each took."""
    for batch in batches:
        start = time.perf_counter()
        found = learner.gradients(batch, 1.0)
        float(found.reconstruction)
        learner.apply(found, len(batch), LR)
        yield time.perf_counter() - start


@styled
def scaling_figure(document: dict) -> Figure:
    """A panel for each quantity: milliseconds per step by each path, both axes logarithmic."""
    figure = Figure(figsize=(1.6 * WIDTH, 1.5 * WIDTH), layout="constrained")
    panels = figure.subplots(2, 2, sharey=True)
    for axes, sweep in zip(panels.flat, document["sweeps"], strict=True):
        _panel(axes, sweep)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(labels), frameon=False)
    return figure


def _panel(axes: Axes, sweep: dict) -> None:
    for path in SHOWN:
        colour, marker = MARKS[path]
        milliseconds = [1000 * seconds[path] for seconds in sweep["seconds"]]
        axes.plot(sweep["values"], milliseconds, marker=marker, color=colour, label=path, markersize=5)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sweep["values"], [f"{value:,}" for value in sweep["values"]], fontsize=8)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.minorticks_off()
    axes.set_xlabel(sweep["quantity"])
    axes.set_ylabel("ms per step")
    axes.grid(color=LINE, linewidth=0.6)


def measured(chosen: Sequence[Sweep], rounds: int = ROUNDS) -> dict:
    """The numbers of the figure, with what they were measured on."""
    found = []
    with float32_products(fast_products_are_exact()):
        for sweep in chosen:
            seconds = []
            for value, point in zip(sweep.values, sweep.points, strict=True):
                print(f"{sweep.quantity} {value:,}", file=sys.stderr, flush=True)
                seconds.append(seconds_per_step(point, rounds))
            found.append({"quantity": sweep.quantity, "values": list(sweep.values), "seconds": seconds})
    return {
        "command": shlex.join(["python", "benchmarks/scaling.py", *sys.argv[1:]]),
        "base": asdict(BASE),
        "rounds": rounds,
        "machine": {**machine(torch.get_num_threads()), "torch": torch.__version__},
        "sweeps": found,
    }


def main() -> None:
    """Measure, and write the numbers and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=DOCS, help="folder of scaling.json and scaling.svg")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--redraw", action="store_true", help="only draw the numbers that lie in the folder")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    numbers = arguments.out / "scaling.json"
    if not arguments.redraw:
        numbers.write_text(json.dumps(measured(sweeps()), indent=1) + "\n", encoding="utf-8")
    document = json.loads(numbers.read_text(encoding="utf-8"))
    drawing = draw(scaling_figure(document), "scaling", "Cost of a training step", describe(document))
    (arguments.out / "scaling.svg").write_text(drawing.standalone(), encoding="utf-8")
    print(arguments.out / "scaling.svg")


def describe(document: dict) -> str:
    """The figure in words."""
    parts = []
    for sweep in document["sweeps"]:
        first, last = sweep["seconds"][0], sweep["seconds"][-1]
        costs = ", ".join(f"{path} {1000 * first[path]:.0f} to {1000 * last[path]:.0f} ms" for path in SHOWN)
        parts.append(f"{sweep['quantity']} {sweep['values'][0]:,} to {sweep['values'][-1]:,}: {costs}")
    return f"Milliseconds per step. {'; '.join(parts)}."


if __name__ == "__main__":
    main()
