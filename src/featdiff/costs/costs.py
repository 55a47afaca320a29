"""What the parts of a study cost, each from its sizes alone: a crosscoder and its steps, a model that is run, tuned, or
sampled from.

dense step     10 tokens features width FLOPs: a product in the encoder, one in the decoder, and three backward, since
               nothing flows on into the models
sparse step    2 tokens features width FLOPs in the encoder; the rows of the active features are read `GATHERS` times
Adam           28 bytes per parameter (weight and two moments read and written, gradient read); 24 in the sparse step,
               where most features have no gradient
backward pass  of a model: twice its forward pass; one more forward where activations are computed again
a new token    of a batch: all weights, and the cached keys and values of every sequence, are read once
"""

from dataclasses import dataclass

from featdiff.costs.hardware import Precision, Work
from featdiff.costs.shapes import Shape

FLOAT = 4
ADAM_DENSE, ADAM_SPARSE = 28, 24
GATHERS = 4
SCREENED_BELOW, SPARSE_BELOW = 0.02, 0.10
"""Shares of active features above which the encoder's product is in float32, and above which the step is dense."""
SCREENED_TOKENS = 600
"""Rows of pre-activations, and of lists of candidates, that a screen keeps."""
DENSE_PART = 0.5
"""An L1 run starts dense: until the learning rates of its steps sum to this (0.25 to 0.7 was seen)."""
TUNED = 16
"""Bytes per parameter of a model that is tuned: weight, gradient and two moments, in float32."""


# ------------------------------------------------------------------ crosscoders


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
        """Length of a row of the dictionary."""
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
        """Memory of a step, dense at first: pre-activations, codes, gates and their gradients; input, error, pull."""
        return FLOAT * tokens * (9 * self.features + 4 * self.width)

    def coding_bytes(self, tokens: int) -> int:
        """Memory of encoding and decoding so many tokens: pre-activations, contributions, codes, reconstructions."""
        return FLOAT * tokens * (6 * self.features + 3 * self.width)


def dense_steps(size: CrosscoderSize, tokens: int, steps: float, copies: int = 1) -> tuple[Work, ...]:
    """So many dense steps with batches of so many tokens; `copies` devices hold the same features and apply Adam."""
    products = 10.0 * tokens * size.features * size.width + 6.0 * tokens * size.hidden * (size.width + size.features)
    return (
        Work(flops=products * steps, of="crosscoder"),
        Work(moved=copies * ADAM_DENSE * size.parameters * steps),
    )


def sparse_steps(size: CrosscoderSize, tokens: int, steps: float, l0: float, copies: int = 1) -> tuple[Work, ...]:
    """So many sparse steps, with `l0` active features per token. While few are, the encoder screens in low
    precision (int8 on a CPU, which is faster than the bfloat16 that counts here)."""
    encoder, active = 2.0 * tokens * size.features * size.width, tokens * l0 * size.width
    precision: Precision = "bf16" if l0 < SCREENED_BELOW * size.features else "fp32"
    return (
        Work(flops=encoder * steps, precision=precision, of="crosscoder"),
        Work(flops=8 * active * steps, moved=GATHERS * FLOAT * active * steps, of="crosscoder"),
        Work(moved=copies * ADAM_SPARSE * size.parameters * steps),
    )


def crosscoder_training(
    size: CrosscoderSize, tokens: int, steps: int, l0: float, lr: float, *, starts_dense: bool, copies: int = 1
) -> tuple[Work, ...]:
    """All steps of a crosscoder: dense at first where its sparsity must be learned, and sparse after that; with an MLP
    dense throughout."""
    if size.hidden or l0 > SPARSE_BELOW * size.features:
        return dense_steps(size, tokens, steps, copies)
    dense = min(steps, DENSE_PART / lr) if starts_dense else 0
    return (*dense_steps(size, tokens, dense, copies), *sparse_steps(size, tokens, steps - dense, l0, copies))


def exchange(size: CrosscoderSize, tokens: int, steps: int, groups: int, shards: int) -> Work:
    """What devices send each other: `groups` of them divide the tokens, in each of which `shards` divide the features.

    A sum over n devices takes each of them 2 (n - 1) / n times its length: gradients over the groups, reconstructions
    over the shards.
    """
    gradients = size.parameters / shards * (groups - 1) / groups
    reconstructions = tokens / groups * size.width * (shards - 1) / shards
    return Work(sent=2 * FLOAT * (gradients + reconstructions) * groups * shards * steps)


def coding(size: CrosscoderSize, tokens: float) -> Work:
    """Encode and decode so many tokens, densely."""
    layer = 2.0 * size.hidden * (size.width + size.features)
    return Work(flops=tokens * (4.0 * size.features * size.width + layer), of="crosscoder")


# ------------------------------------------------------------------ models


@dataclass(frozen=True)
class Model:
    """A model as it is run: its shape, the precision of its products and of its values, and where the shape is from."""

    shape: Shape
    precision: Precision
    origin: str = ""

    @property
    def value(self) -> int:
        """Bytes of a value."""
        return 2 if self.precision == "bf16" else FLOAT

    @property
    def cached_bytes(self) -> int:
        """Bytes of the keys and values of one token."""
        return self.shape.cached_values * self.value

    def forward_bytes(self, tokens: int) -> float:
        """Memory of a forward pass without gradients, beside the weights and what comes out."""
        return tokens * self.shape.block_values * self.value


def forward(
    model: Model, tokens: float, attended: float, calls: float, *, layers: int | None = None, head: bool = True
) -> Work:
    """So many tokens through `layers` blocks (None: all), in so many calls of the model."""
    blocks = model.shape.layers if layers is None else layers
    flops = tokens * model.shape.forward(attended, layers=blocks, head=head)
    return Work(flops=flops, calls=calls * blocks, precision=model.precision)


def tuning(model: Model, tokens: float, attended: float, calls: float, steps: float, passes: float) -> tuple[Work, ...]:
    """Training on so many tokens, in so many calls and optimizer steps.

    `passes` in units of a forward pass: 3, and one for every further forward pass.
    """
    adam = Work(moved=ADAM_DENSE * model.shape.parameters * steps)
    return forward(model, tokens * passes, attended, calls * passes), adam


def sampling(
    model: Model, sequences: int, batch: float, prompt: int, length: int, *, weight: int, recorded: bool
) -> Work:
    """Completions of `length` tokens after prompts, `batch` sequences at a time.

    `weight`: bytes of a stored weight, which may be wider than the products. `recorded`: blocks are not started one by
    one, but as a graph that was recorded before.
    """
    steps = sequences / batch * length
    attended = prompt + length / 2
    cached = batch * attended * model.cached_bytes
    return Work(
        flops=sequences * (length * model.shape.forward(attended) + prompt * model.shape.forward(prompt / 2)),
        moved=steps * (model.shape.parameters * weight + cached),
        calls=0 if recorded else steps * model.shape.layers,
        precision=model.precision,
    )


def tuning_memory(model: Model, tokens: int, again: bool) -> dict[str, float]:
    """Memory of tuning with so many tokens in one forward pass.

    `again`: of a block only what enters it is kept, in float32, and the rest computed once more.
    """
    shape = model.shape
    block = shape.block_values * model.value
    kept = shape.layers * (FLOAT * shape.d_model if again else block) + 2 * block
    copies = shape.parameters * 2 if model.precision == "bf16" else 0
    return {
        "weights, gradients, moments": TUNED * shape.parameters + copies,
        "activations": tokens * kept,
        "gradient of the LM head": FLOAT * shape.embedding,  # TRL sums it over tiles, and never holds all logits
    }
