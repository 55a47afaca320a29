"""Bytes that a crosscoder takes, on the disk and in memory, from its sizes alone."""

from dataclasses import dataclass

FLOAT = 4
SCREENED_TOKENS = 600
"""Rows of pre-activations, and of lists of candidates, that a CPU's screen keeps from batch to batch."""


@dataclass(frozen=True)
class CrosscoderSize:
    """Size of one crosscoder; `hidden` units of an MLP. Thresholds and scales are too few to count."""

    models: int
    d_model: int
    features: int
    hidden: int = 0

    @property
    def width(self) -> int:
        """Length of a row of the dictionary, models times d_model."""
        return self.models * self.d_model

    @property
    def weights(self) -> int:
        """Weights that a token is multiplied with: W_enc, W_dec, and the hidden layer of an MLP."""
        return 2 * self.features * self.width + self.hidden * (self.width + self.features)

    @property
    def file_bytes(self) -> int:
        """Tensors of crosscoder.safetensors: weights and biases."""
        return FLOAT * (self.weights + self.features + self.width + self.hidden)

    @property
    def checkpoint_bytes(self) -> int:
        """Tensors that a training checkpoint holds of it: weights, Adam's moments, and who was silent for how long."""
        return 3 * self.file_bytes + 8 * self.features

    @property
    def training_bytes(self) -> int:
        """Memory of weights, gradients, moments, a copy of the encoder in low precision, and a CPU's screen."""
        return 4 * self.file_bytes + self.weights + FLOAT * SCREENED_TOKENS * self.features

    def step_bytes(self, tokens: int) -> int:
        """Memory of a dense step: pre-activations, codes, gates and their gradients; input, error, pull."""
        return FLOAT * tokens * (9 * self.features + 4 * self.width)

    def coding_bytes(self, tokens: int) -> int:
        """Memory of encoding and decoding `tokens`: pre-activations, contributions, codes, reconstructions."""
        return FLOAT * tokens * (6 * self.features + 3 * self.width)
