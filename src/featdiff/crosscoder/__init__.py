"""The shared dictionary: a sparse crosscoder over any number of models, its training, and how well it fits."""

from featdiff.crosscoder.design import MLP, Design, Linear, Procrustes, Shared
from featdiff.crosscoder.model import Crosscoder, Loss
from featdiff.crosscoder.objectives import MSE, Cosine, DeltaMSE
from featdiff.crosscoder.sparsity import BatchTopK, JumpReLU, ReLU, Sparsity

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
    "Procrustes",
    "ReLU",
    "Shared",
    "Sparsity",
]
