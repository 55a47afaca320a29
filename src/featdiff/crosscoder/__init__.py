"""The shared dictionary: a sparse crosscoder over any number of models, its training, and how well it fits."""

from featdiff.crosscoder.model import Crosscoder, Loss
from featdiff.crosscoder.sparsity import BatchTopK, ReLU, Sparsity

__all__ = ["BatchTopK", "Crosscoder", "Loss", "ReLU", "Sparsity"]
