"""featdiff's own rows: the same step by each of its paths, at a chosen share of active features."""

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import switches
import torch
from data import read_batch, read_rows
from peers import Loaded, Trainer
from task import BETAS, CLIP, L1, LR, Task
from torch import Tensor

from featdiff.crosscoder.kernels.borders import Path as KernelPath
from featdiff.crosscoder.matmul import fast_products_are_exact, float32_products
from featdiff.crosscoder.model import Crosscoder
from featdiff.crosscoder.sparsity import BatchTopK, ReLU
from featdiff.crosscoder.step import Learner

PATHS: dict[str, KernelPath | None] = {
    "reference": "reference",
    "dense": "dense",
    "compact": "compact",
    "sparse": "screened",
    "auto": None,
}


def load(task: Task) -> Loaded:
    """featdiff by one path: `task.variant` is one of `PATHS`, with -batchtopk after it for BatchTopK."""

    def build() -> Trainer:
        path, _, kind = task.variant.partition("-")
        threads = torch.get_num_threads()
        crosscoder = Crosscoder(
            models=tuple(f"model{number}" for number in range(task.shape.models)),
            d_model=task.shape.d_model,
            features=task.shape.features,
            sparsity=BatchTopK(k=round(task.l0)) if kind == "batchtopk" else ReLU(weight=L1),
        )
        start_near_the_truth(crosscoder, read_rows(Path(task.data)), read_batch(Path(task.data), 0), task.l0)
        switches.give_back_memory()  # that start is no part of training, and no peer has it
        learner = Learner(crosscoder, lr=LR, betas=BETAS, clip=CLIP, path=PATHS[path], threads=threads)

        def train(batches: Iterator[Tensor]) -> None:
            with float32_products(fast_products_are_exact()):
                for batch in batches:
                    found = learner.gradients(batch, 1.0)
                    float(found.reconstruction)  # training looks at it in every step
                    learner.apply(found, len(batch), LR)

        def rebuild(batch: Tensor) -> tuple[Tensor, Tensor]:
            features = crosscoder.encode(batch)
            return crosscoder.decode(features), features

        return Trainer(train, rebuild)

    return Loaded(version("featdiff"), build)


@torch.no_grad()
def start_near_the_truth(crosscoder: Crosscoder, rows: Tensor, batch: Tensor, l0: float) -> None:
    """Take over the true dictionary `rows`, with a b_enc (under BatchTopK a threshold) at which `l0` features per token
    of `batch` are active, and with codes whose size fits `batch` best.

    Training reaches such a state only after thousands of steps, and the cost of a sparse step depends on it.
    """
    # In the gauge of a finished crosscoder: in others Adam's first steps are large against the encoder's entries.
    norms = rows.norm(dim=-1).sum(dim=-1)[:, None, None]
    crosscoder.W_dec.copy_(rows / norms)
    crosscoder.W_enc.copy_((rows * (norms / rows.square().sum(dim=(1, 2), keepdim=True))).permute(1, 2, 0))
    pre = crosscoder.pre_activations(batch)
    active = round(l0 * len(pre))
    if isinstance(crosscoder.sparsity, BatchTopK):
        crosscoder.threshold.copy_(_largest(pre * crosscoder.decoder_norms(), active))
    else:
        crosscoder.b_enc.fill_(-_largest(pre, active))
    rebuilt = crosscoder.decode(crosscoder.encode(batch))
    # Many active features overlap, and together they overshoot; gradients would then quickly silence them.
    size = (rebuilt * batch).sum() / rebuilt.square().sum()
    for tensor in (crosscoder.W_enc, crosscoder.b_enc, crosscoder.threshold):
        tensor.mul_(size)


def _largest(values: Tensor, count: int) -> Tensor:
    """The value that `count` of them exceed."""
    return values.flatten().kthvalue(values.numel() - count).values
