"""The shared dictionary: a sparse crosscoder over any number of models, its training, and how well it fits."""

from featdiff.crosscoder.model import Crosscoder, Loss
from featdiff.crosscoder.sparsity import BatchTopK, JumpReLU, ReLU, Sparsity

__all__ = ["BatchTopK", "Crosscoder", "JumpReLU", "Loss", "ReLU", "Sparsity"]
