"""Which kernel computes the steps of a crosscoder."""

from importlib.util import find_spec
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from featdiff.config.crosscoder import Sparsity
from featdiff.crosscoder.kernels.borders import Path
from featdiff.crosscoder.kernels.cpu.step import Cpu
from featdiff.crosscoder.kernels.cpu.threads import Workers
from featdiff.crosscoder.kernels.parameter_rows import Batch, Found, Rates, Rows
from featdiff.crosscoder.kernels.ranks import Ranks


@runtime_checkable
class Screening(Protocol):
    """A search for active pairs."""

    margin: Float[Tensor, ""]
    """Deviations that its rounded product may be off; an audit may double it."""


@runtime_checkable
class Kernel(Protocol):
    """The step of one crosscoder on one kind of device."""

    @property
    def screen(self) -> Screening: ...

    def refresh(self) -> None:
        """Take over weights that something else has changed."""
        ...

    def take_over_gradients(self) -> None:
        """Take over gradients that something else has changed."""
        ...

    def find(self, batch: Batch, path: Path, ranks: Ranks) -> Found:
        """Overwrite the gradients with those of one batch."""
        ...

    def update(self, means: Rows, squares: Rows, rates: Rates) -> None:
        """One step of Adam on all rows, in place."""
        ...


def kernel_for(sparsity: Sparsity, weights: Rows, gradients: Rows, models: int, workers: Workers) -> Kernel | None:
    """The kernel for these parameters; None where there is none: then torch's dense products do all the work.

    Kernels compute in float32. A GPU must multiply bfloat16, and triton be installed, as it is with torch for CUDA.
    """
    if weights.enc.dtype != torch.float32:
        return None
    match weights.enc.device.type:
        case "cpu":
            return Cpu(sparsity, weights, gradients, models, workers)
        case "cuda" if find_spec("triton") and torch.cuda.is_bf16_supported(including_emulation=False):
            # Not at the top: where there is no GPU, triton need not be installed.
            from featdiff.crosscoder.kernels.triton.step import Triton

            return Triton(sparsity, weights, gradients, models)
        case _:
            return None
