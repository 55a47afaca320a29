"""Bytes that a crosscoder takes, on the disk and in memory, from its sizes alone."""

from dataclasses import dataclass

FLOAT = 4
SCREENED_TOKENS = 600
"""Rows of pre-activations, and of lists of candidates, that a CPU's screen keeps."""


@dataclass(frozen=True)
class CrosscoderSize:
    """Size of one crosscoder; `thresholds` where every feature has its own (JumpReLU), `hidden` units of an MLP."""

    models: int
    d_model: int
    features: int
    thresholds: bool = False
    hidden: int = 0

    @property
    def width(self) -> int:
        """Length of a row of the dictionary, models times d_model."""
        return self.models * self.d_model

    @property
    def parameters(self) -> int:
        """W_enc, W_dec, b_enc, b_dec, the thresholds, and the hidden layer of an MLP."""
        layer = self.hidden * (self.width + self.features + 1)
        return 2 * self.features * self.width + (2 if self.thresholds else 1) * self.features + self.width + layer

    @property
    def file_bytes(self) -> int:
        """Tensors of crosscoder.safetensors: parameters, a scale per model, a threshold."""
        return FLOAT * (self.parameters + self.models + 1)

    @property
    def checkpoint_bytes(self) -> int:
        """Tensors that a training checkpoint holds of it: weights, Adam's moments, and who was silent for how long."""
        return self.file_bytes + 2 * FLOAT * self.parameters + 8 * self.features

    @property
    def training_bytes(self) -> int:
        """Memory of its training: weights, gradients, two moments, and a copy of the encoder (int8 or bfloat16)."""
        return 4 * FLOAT * self.parameters + 2 * self.features * self.width

    @property
    def screen_bytes(self) -> int:
        """Memory that a CPU's sparse step keeps from batch to batch, where it looks for active features."""
        return FLOAT * SCREENED_TOKENS * self.features

    def step_bytes(self, tokens: int) -> int:
        """Memory of a dense step: pre-activations, codes, gates and their gradients; input, error, pull."""
        return FLOAT * tokens * (9 * self.features + 4 * self.width)

    def coding_bytes(self, tokens: int) -> int:
        """Memory of encoding and decoding `tokens`: pre-activations, contributions, codes, reconstructions."""
        return FLOAT * tokens * (6 * self.features + 3 * self.width)
