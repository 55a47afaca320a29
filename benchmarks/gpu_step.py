"""One training step on a CUDA GPU at the paper's shape: 3 models, d_model 2,560, 32,768 features.

    python benchmarks/gpu_step.py                       # batches of 1,024 and of 4,096 tokens
    python benchmarks/gpu_step.py --json > RUN.json

reference    dense autograd in float32, clipping, torch's Adam; it encodes once more to say which features are active
autocast     autograd with products in bfloat16, clipping, torch's fused Adam: gradients are a few percent off
dense        five float32 products written out, featdiff's Adam
sparse       featdiff's sparse step: a bfloat16 screen, float32 values and gradients of active pairs, featdiff's Adam

All start from the same state, next to the truth of a sparse mixture (`data.py`), with L0 as asked for. They live in one
process (about 50 GiB of GPU memory) and take turns, and medians of the rounds count. The GPU's bfloat16 products and
its copies are measured in the same run; shares are of these.
"""

import argparse
import json
import platform
import shlex
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import cycle

import torch
from data import mixture
from harvest import take_turns
from own import start_near_the_truth
from task import BETAS, CLIP, L1, LR, Shape
from torch import Tensor

from featdiff.crosscoder.kernels.borders import Path
from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.sparsity import ReLU
from featdiff.crosscoder.step import Learner

PAPER_TOKENS = 400_000_000
BATCHES = 2
PATHS: dict[str, Path] = {"reference": "reference", "dense": "dense", "sparse": "screened"}
TRAINERS = ("reference", "autocast", "dense", "sparse")


@dataclass(frozen=True)
class Work:
    """What a step cannot do without."""

    flops: float
    """Floating-point operations of its products."""
    adam_bytes: float
    """What Adam reads and writes: weights and both moments twice, gradients where there are any once."""


@dataclass(frozen=True)
class Limits:
    """What the GPU reaches on what it does best."""

    flops_per_second: float
    """bfloat16 products."""
    bytes_per_second: float
    """Copies, read and written bytes together."""


@dataclass(frozen=True)
class Record:
    """One trainer at one batch size."""

    trainer: str
    tokens: int
    l0: float | None
    """None where the trainer does not say."""
    median_seconds: float
    fastest_seconds: float
    slowest_seconds: float
    ratio: float
    """Of its median to that of the sparse step."""
    share_of_bfloat16: float
    share_of_bandwidth: float
    paper_hours: float
    """For 400 million tokens."""


@dataclass(frozen=True)
class Active:
    """What was active in a batch."""

    pairs: int
    """(token, feature)."""
    touched: float
    """Share of the features that are active on some token."""


def dense_work(shape: Shape) -> Work:
    """Two products forward, three backward."""
    return Work(5 * 2 * shape.tokens * shape.width * shape.features, 28 * 2 * shape.features * shape.width)


def sparse_work(shape: Shape, active: Active) -> Work:
    """The screen's product, and for each pair five of a row: refine, decode, upstream gradient, two gradient rows."""
    flops = 2 * shape.tokens * shape.width * shape.features + 5 * 2 * active.pairs * shape.width
    return Work(flops, (24 + 4 * active.touched) * 2 * shape.features * shape.width)


def record(
    trainer: str, seconds: tuple[float, ...], sparse: float, l0: float | None, done: Work, limits: Limits, tokens: int
) -> Record:
    """What the rounds of one trainer say; `sparse`: the median of the sparse step."""
    median = statistics.median(seconds)
    return Record(
        trainer=trainer,
        tokens=tokens,
        l0=l0,
        median_seconds=median,
        fastest_seconds=min(seconds),
        slowest_seconds=max(seconds),
        ratio=median / sparse,
        share_of_bfloat16=done.flops / median / limits.flops_per_second,
        share_of_bandwidth=done.adam_bytes / median / limits.bytes_per_second,
        paper_hours=PAPER_TOKENS / tokens * median / 3600,
    )


def measured(shape: Shape, l0: float, rounds: int, steps: int, device: str, limits: Limits) -> list[Record]:
    """Every trainer in turns, at one batch size."""
    true, drawn = mixture(shape, l0, BATCHES)
    rows, batches = true.to(device), [batch.to(device) for batch in drawn]
    active: dict[str, Active] = {}
    contestants = {name: trainer(name, shape, rows, batches, l0, steps, active) for name in TRAINERS}
    spent = {name: tuple(each / steps for each in one.wall) for name, one in take_turns(contestants, rounds).items()}
    sparse = statistics.median(spent["sparse"])

    def of(name: str) -> Record:
        found = active.get(name)
        done = sparse_work(shape, active[name]) if name == "sparse" else dense_work(shape)
        share = None if found is None else found.pairs / shape.tokens
        return record(name, spent[name], sparse, share, done, limits, shape.tokens)

    return [of(name) for name in TRAINERS]


def trainer(
    name: str,
    shape: Shape,
    rows: Tensor,
    batches: list[Tensor],
    l0: float,
    steps: int,
    active: dict[str, Active],
) -> Callable[[], None]:
    """So many steps of one trainer, to the end; it notes in `active` what it finds."""
    names = tuple(f"model{number}" for number in range(shape.models))
    crosscoder = Crosscoder(names, shape.d_model, shape.features, ReLU(weight=L1)).to(rows.device)
    start_near_the_truth(crosscoder, rows, batches[0], l0)
    order = cycle(batches)
    step = autocast(crosscoder) if name == "autocast" else own(crosscoder, name, active)

    def run() -> None:
        for _ in range(steps):
            step(next(order))
        if rows.is_cuda:
            torch.cuda.synchronize()

    return run


def own(crosscoder: Crosscoder, name: str, active: dict[str, Active]) -> Callable[[Tensor], None]:
    """A step of featdiff by one of its paths."""
    learner = Learner(crosscoder, lr=LR, betas=BETAS, clip=CLIP, path=PATHS[name])

    def step(batch: Tensor) -> None:
        found = learner.gradients(batch, 1.0)
        float(found.reconstruction)  # training looks at it in every step
        learner.apply(found, len(batch), LR)
        active[name] = Active(found.active, float(found.fired.double().mean()))

    return step


def autocast(crosscoder: Crosscoder) -> Callable[[Tensor], None]:
    """The same step as torch's users write it, with all that torch offers."""
    parameters = list(crosscoder.parameters())
    adam = torch.optim.Adam(parameters, lr=LR, betas=BETAS, fused=True)

    def step(batch: Tensor) -> None:
        adam.zero_grad()
        with torch.autocast(batch.device.type, torch.bfloat16):
            loss = crosscoder.loss(batch)
        loss.total.backward()
        float(loss.reconstruction.detach())
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        adam.step()

    return step


def limits_of(device: str, size: int = 8192, repeats: int = 20) -> Limits:
    """The GPU's speed at large bfloat16 products and at copying 2 GiB."""
    left, right = torch.randn(2, size, size, device=device, dtype=torch.bfloat16)
    source = torch.zeros(2**29, device=device)
    target = torch.empty_like(source)

    def seconds(function: Callable[[], object]) -> float:
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        for _ in range(3):
            function()
        start.record()
        for _ in range(repeats):
            function()
        stop.record()
        torch.cuda.synchronize()
        return start.elapsed_time(stop) / 1000 / repeats

    return Limits(
        flops_per_second=2 * size**3 / seconds(lambda: left @ right),
        bytes_per_second=2 * source.numel() * source.element_size() / seconds(lambda: target.copy_(source)),
    )


def text(document: dict) -> str:
    """The document as a table in Markdown."""
    limits = document["limits"]
    head = [
        f"{document['gpu']}, torch {document['torch']}, triton {document['triton']}; "
        f"bfloat16 products {limits['flops_per_second'] / 1e12:.0f} TFLOP/s, "
        f"copies {limits['bytes_per_second'] / 1e12:.2f} TB/s. `{document['command']}`",
        "",
        "| trainer | tokens | L0 | ms per step | x sparse | products, of bfloat16 | Adam, of bandwidth | 400M tokens |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    return "\n".join(head + [_line(each) for each in document["records"]])


def _line(each: dict) -> str:
    cells = [
        each["trainer"],
        each["tokens"],
        "" if each["l0"] is None else round(each["l0"]),
        f"{1000 * each['median_seconds']:.2f}",
        f"{each['ratio']:.2f}",
        f"{each['share_of_bfloat16']:.0%}",
        f"{each['share_of_bandwidth']:.0%}",
        f"{each['paper_hours']:.2f} h",
    ]
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def main() -> None:
    """Measure, and print a table, or all there is as JSON."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 4096], help="tokens of a batch")
    parser.add_argument("--l0", type=float, default=100.0, help="active features per token")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=10, help="steps of a trainer in each round")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("gpu_step.py: torch finds no CUDA GPU; run it on a machine that has one", file=sys.stderr)
        sys.exit(2)
    import triton  # only where there is a GPU

    limits = limits_of("cuda")
    records = []
    for tokens in arguments.tokens:
        shape = Shape(models=3, d_model=2560, features=32_768, tokens=tokens)
        records += measured(shape, arguments.l0, arguments.rounds, arguments.steps, "cuda", limits)
        torch.cuda.empty_cache()
    document = {
        "command": shlex.join(["python", *sys.argv]),
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "python": platform.python_version(),
        "limits": asdict(limits),
        "records": [asdict(each) for each in records],
    }
    print(json.dumps(document, indent=2) if arguments.json else text(document))


if __name__ == "__main__":
    main()
