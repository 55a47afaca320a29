"""The shared dictionary: a sparse crosscoder over any number of models, its loss, training and fit.

What needs torch is imported when first used, so that the costs of a study can be estimated without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from featdiff.config.crosscoder import (
    MLP,
    MSE,
    BatchTopK,
    Cosine,
    DeltaMSE,
    Design,
    JumpReLU,
    Linear,
    NoAlignment,
    Procrustes,
    ReLU,
    Shared,
    Sparsity,
)

if TYPE_CHECKING:
    from featdiff.crosscoder.loss import Loss
    from featdiff.crosscoder.model import Crosscoder
    from featdiff.crosscoder.trainer import Trainer, train

_HOMES = {"Loss": "loss", "Crosscoder": "model", "Trainer": "trainer", "train": "trainer"}

__all__ = [
    "MLP",
    "MSE",
    "BatchTopK",
    "Cosine",
    "Crosscoder",
    "DeltaMSE",
    "Design",
    "JumpReLU",
    "Linear",
    "Loss",
    "NoAlignment",
    "Procrustes",
    "ReLU",
    "Shared",
    "Sparsity",
    "Trainer",
    "train",
]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f"featdiff.crosscoder.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'featdiff.crosscoder' has no attribute {name!r}")
