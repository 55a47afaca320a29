"""The shared dictionary: a sparse crosscoder over any number of models, its loss, training and fit."""

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
from featdiff.crosscoder.loss import Loss
from featdiff.crosscoder.model import Crosscoder

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
]
